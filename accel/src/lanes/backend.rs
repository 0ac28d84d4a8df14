//! What makes a backend of a vector type: entry points compiled for its instruction set, a size each.

/// `lane_backend!(name, attribute, few, {bits: vector, limbs, tile, columns; …})` defines `kernels::<A>()`, the backend beside the scalar
/// arithmetic A.
///
/// `tile` is of the products of two vectors, `columns` of those by a constant. Batches of at most `few` go to A, as do sizes that are
/// not listed. The attribute enables what the vector types need.
macro_rules! lane_backend {
    ($name:literal, $(#[$features:meta])?, $few:literal, {$($bits:literal: $vector:ty, $limbs:literal, $tile:literal, $columns:literal;)*}) => {
        /// This backend. Hand it out only where the CPU and the operating system have its features.
        pub(crate) const fn kernels<A: swarmseal_core::kernels::Arithmetic>() -> swarmseal_core::Kernels {
            swarmseal_core::Kernels {
                name: $name,
                mul_blocks: mul_blocks::<A>,
                modpow_batch: modpow_batch::<A>,
                two_pow_batch_vartime: two_pow_batch_vartime::<A>,
                comb_words,
                comb_fill: comb_fill::<A>,
                comb_pow: comb_pow::<A>,
                ..swarmseal_core::Kernels::scalar::<A>()
            }
        }

        $(const _: () = $crate::lanes::check::<$vector, $limbs, $tile>($bits);)*
        $(const _: () = $crate::lanes::constant::check::<$vector, $limbs, $columns>($bits);)*

        #[allow(unused_unsafe)]
        fn mul_blocks<A: swarmseal_core::kernels::Arithmetic>(
            m: &swarmseal_core::Modulus,
            factor: &[swarmseal_core::Word],
            order: swarmseal_core::kernels::ByteOrder,
            blocks: &mut [u8],
        ) {
            $(#[$features])?
            fn compiled<
                V: $crate::lanes::Lanes,
                A: swarmseal_core::kernels::Arithmetic,
                const L: usize,
                const C: usize,
                const REST: usize,
            >(
                m: &swarmseal_core::Modulus,
                factor: &[swarmseal_core::Word],
                order: swarmseal_core::kernels::ByteOrder,
                blocks: &mut [u8],
            ) {
                $crate::lanes::constant::mul_blocks::<V, A, L, C, REST>(m, factor, order, blocks);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                $($bits => {
                    const REST: usize = $limbs % $columns;
                    // SAFETY: this function is reached through `kernels` alone, which promises the features.
                    unsafe { compiled::<$vector, A, $limbs, $columns, REST>(m, factor, order, blocks) }
                })*
                _ => A::mul_blocks(m, factor, order, blocks),
            }
        }

        #[allow(unused_unsafe)]
        fn modpow_batch<A: swarmseal_core::kernels::Arithmetic>(powers: &[swarmseal_core::kernels::Power<'_>], out: &mut [swarmseal_core::Word]) {
            $(#[$features])?
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
                    // SAFETY: this function is reached through `kernels` alone, which promises the features.
                    unsafe { compiled::<$vector, $limbs, $tile>(powers, out) };
                    swarmseal_core::kernels::scalar::modpow_batch::<A>(few, few_out);
                })*
                _ => swarmseal_core::kernels::scalar::modpow_batch::<A>(powers, out),
            }
        }

        #[allow(unused_unsafe)]
        fn two_pow_batch_vartime<A: swarmseal_core::kernels::Arithmetic>(
            powers: &[swarmseal_core::kernels::TwoPower<'_>],
            out: &mut [swarmseal_core::Word],
        ) {
            $(#[$features])?
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                powers: &[swarmseal_core::kernels::TwoPower<'_>],
                out: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::two_pow_batch_vartime::<V, L, C>(powers, out);
            }
            let len = powers.first().map_or(0, |power| power.modulus.len());
            match len * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `kernels` alone, which promises the features.
                $($bits if powers.len() > $few => unsafe { compiled::<$vector, $limbs, $tile>(powers, out) },)*
                _ => swarmseal_core::kernels::scalar::two_pow_batch_vartime::<A>(powers, out),
            }
        }

        fn comb_words(m: &swarmseal_core::Modulus, bits: usize) -> usize {
            match m.len() * swarmseal_core::Word::BITS as usize {
                $($bits => $crate::lanes::comb_words::<$limbs>(bits),)*
                _ => swarmseal_core::kernels::scalar::comb_words(m, bits),
            }
        }

        #[allow(unused_unsafe)]
        fn comb_fill<A: swarmseal_core::kernels::Arithmetic>(
            m: &swarmseal_core::Modulus,
            base: &[swarmseal_core::Word],
            bits: usize,
            table: &mut [swarmseal_core::Word],
        ) {
            $(#[$features])?
            fn compiled<A: swarmseal_core::kernels::Arithmetic, V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                m: &swarmseal_core::Modulus,
                base: &[swarmseal_core::Word],
                bits: usize,
                table: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::comb_fill::<V, A, L, C>(m, base, bits, table);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `kernels` alone, which promises the features.
                $($bits => unsafe { compiled::<A, $vector, $limbs, $tile>(m, base, bits, table) },)*
                _ => swarmseal_core::kernels::scalar::comb_fill::<A>(m, base, bits, table),
            }
        }

        #[allow(unused_unsafe)]
        fn comb_pow<A: swarmseal_core::kernels::Arithmetic>(
            m: &swarmseal_core::Modulus,
            bits: usize,
            combs: &[swarmseal_core::kernels::Comb<'_>],
            out: &mut [swarmseal_core::Word],
        ) {
            $(#[$features])?
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                m: &swarmseal_core::Modulus,
                bits: usize,
                combs: &[swarmseal_core::kernels::Comb<'_>],
                out: &mut [swarmseal_core::Word],
            ) {
                $crate::lanes::comb_pow::<V, L, C>(m, bits, combs, out);
            }
            match m.len() * swarmseal_core::Word::BITS as usize {
                // SAFETY: this function is reached through `kernels` alone, which promises the features.
                $($bits => unsafe { compiled::<$vector, $limbs, $tile>(m, bits, combs, out) },)*
                _ => swarmseal_core::kernels::scalar::comb_pow::<A>(m, bits, combs, out),
            }
        }
    };
}
pub(crate) use lane_backend;

/// [`Lanes::mont_mul`](super::Lanes::mont_mul) and `mont_sqr` of a vector type, within its `impl`.
macro_rules! compiled_products {
    ($(#[$features:meta])?) => {
        #[allow(unused_unsafe)]
        #[inline(always)]
        fn mont_mul<const L: usize, const C: usize>(
            moduli: &$crate::lanes::Moduli<Self, L>,
            a: &[Self; L],
            b: &[Self; L],
            out: &mut [Self; L],
        ) {
            $(#[$features])?
            #[inline(never)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                moduli: &$crate::lanes::Moduli<V, L>,
                a: &[V; L],
                b: &[V; L],
                out: &mut [V; L],
            ) {
                moduli.mul_here::<C>(a, b, out);
            }
            // SAFETY: values of this type exist below the backend's entry points alone, which promise the features.
            unsafe { compiled::<Self, L, C>(moduli, a, b, out) }
        }

        #[allow(unused_unsafe)]
        #[inline(always)]
        fn mont_sqr<const L: usize, const C: usize>(
            moduli: &$crate::lanes::Moduli<Self, L>,
            a: &[Self; L],
            out: &mut [Self; L],
        ) {
            $(#[$features])?
            #[inline(never)]
            fn compiled<V: $crate::lanes::Lanes, const L: usize, const C: usize>(
                moduli: &$crate::lanes::Moduli<V, L>,
                a: &[V; L],
                out: &mut [V; L],
            ) {
                moduli.square_here::<C>(a, out);
            }
            // SAFETY: values of this type exist below the backend's entry points alone, which promise the features.
            unsafe { compiled::<Self, L, C>(moduli, a, out) }
        }
    };
}
pub(crate) use compiled_products;
