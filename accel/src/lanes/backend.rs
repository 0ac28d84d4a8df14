//! What makes a backend of a vector type: entry points compiled for its instruction set, a size each.

/// `lane_backend!(name, features, scalar backend, few, lanes, {bits: vector, limbs, tile; …})` defines `KERNELS`.
///
/// Batches of at most `few` go to the scalar backend, as do sizes that are not listed. `features` are what every vector type needs.
macro_rules! lane_backend {
    ($name:literal, $features:literal, $scalar:ty, $few:literal, {$($bits:literal: $vector:ty, $limbs:literal, $tile:literal;)*}) => {
        const SCALAR: swarmseal_core::Kernels = swarmseal_core::Kernels::scalar::<$scalar>();

        /// This backend. Hand it out only where the CPU and the operating system have its features.
        pub(crate) static KERNELS: swarmseal_core::Kernels = swarmseal_core::Kernels {
            name: $name,
            mul_blocks,
            modpow_batch,
            comb_words,
            comb_fill,
            comb_pow,
            ..SCALAR
        };

        $(const _: () = $crate::lanes::check::<$vector, $limbs, $tile>($bits);)*

        fn mul_blocks(
            m: &swarmseal_core::Modulus,
            factor: &[swarmseal_core::Word],
            order: swarmseal_core::kernels::ByteOrder,
            blocks: &mut [u8],
        ) {
            #[target_feature(enable = $features)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                m: &swarmseal_core::Modulus,
                factor: &[swarmseal_core::Word],
                order: swarmseal_core::kernels::ByteOrder,
                blocks: &mut [u8],
            ) {
                $crate::lanes::mul_blocks::<V, L, C>(m, factor, order, blocks);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `KERNELS` alone, which promises the features.
                $($bits => unsafe { compiled::<$vector, $limbs, $tile>(m, factor, order, blocks) },)*
                _ => (SCALAR.mul_blocks)(m, factor, order, blocks),
            }
        }

        fn modpow_batch(powers: &[swarmseal_core::kernels::Power<'_>], out: &mut [swarmseal_core::Word]) {
            #[target_feature(enable = $features)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                powers: &[swarmseal_core::kernels::Power<'_>],
                out: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::modpow_batch::<V, L, C>(powers, out);
            }
            let len = powers.first().map_or(0, |power| power.modulus.len());
            match len * swarmseal_core::Word::BITS as usize {
                $($bits => {
                    // Whole vectors, and what is left where it fills enough of one.
                    let lanes = <$vector as $crate::lanes::Lanes>::LANES;
                    let rest = powers.len() % lanes;
                    let whole = if rest <= $few { powers.len() - rest } else { powers.len() };
                    let (powers, few) = powers.split_at(whole);
                    let (out, few_out) = out.split_at_mut(whole * len);
                    // SAFETY: this function is reached through `KERNELS` alone, which promises the features.
                    unsafe { compiled::<$vector, $limbs, $tile>(powers, out) };
                    (SCALAR.modpow_batch)(few, few_out);
                })*
                _ => (SCALAR.modpow_batch)(powers, out),
            }
        }

        fn comb_words(m: &swarmseal_core::Modulus, bits: usize) -> usize {
            match m.len() * swarmseal_core::Word::BITS as usize {
                $($bits => $crate::lanes::comb_words::<$limbs>(),)*
                _ => (SCALAR.comb_words)(m, bits),
            }
        }

        fn comb_fill(
            m: &swarmseal_core::Modulus,
            base: &[swarmseal_core::Word],
            bits: usize,
            table: &mut [swarmseal_core::Word],
        ) {
            #[target_feature(enable = $features)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                m: &swarmseal_core::Modulus,
                base: &[swarmseal_core::Word],
                bits: usize,
                table: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::comb_fill::<V, $scalar, L, C>(m, base, bits, table);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `KERNELS` alone, which promises the features.
                $($bits => unsafe { compiled::<$vector, $limbs, $tile>(m, base, bits, table) },)*
                _ => (SCALAR.comb_fill)(m, base, bits, table),
            }
        }

        fn comb_pow(
            m: &swarmseal_core::Modulus,
            bits: usize,
            combs: &[swarmseal_core::kernels::Comb<'_>],
            out: &mut [swarmseal_core::Word],
        ) {
            #[target_feature(enable = $features)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                m: &swarmseal_core::Modulus,
                bits: usize,
                combs: &[swarmseal_core::kernels::Comb<'_>],
                out: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::comb_pow::<V, L, C>(m, bits, combs, out);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `KERNELS` alone, which promises the features.
                $($bits => unsafe { compiled::<$vector, $limbs, $tile>(m, bits, combs, out) },)*
                _ => (SCALAR.comb_pow)(m, bits, combs, out),
            }
        }
    };
}
pub(crate) use lane_backend;
