//! A generator of test keys: BLAKE3's extendable output.

pub(crate) struct Stream(blake3::OutputReader);

impl Stream {
    /// The same bytes for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Stream(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }
}

impl rand_core::TryRng for Stream {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Stream {}
