//! Instructions, counted by SysTick.
//!
//! SysTick counts cycles of the processor's clock. QEMU knows no cycles: with `-icount shift=3` every instruction takes 8 ns of virtual time,
//! whichever it is, and the clock of the board, of 25 MHz, has a tick for five of them. [`Counter::start`] does not take that for granted: it
//! times loops of known length, and refuses a clock that does not count instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::exception;

/// The counter has 24 bits.
const PERIOD: u32 = 1 << 24;

/// How often it has begun anew.
static ROUNDS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // No other writer, so it need not be one step; the handler is all that this adds to what is counted, once in 2^24 ticks.
    ROUNDS.store(ROUNDS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A clock that is known to count instructions.
#[derive(Clone, Copy)]
pub(crate) struct Counter {
    /// Instructions that a tick stands for.
    pub(crate) scale: u64,
}

/// Loops of known length did not take as many ticks as their instructions say.
pub(crate) struct NotInstructions;

impl Counter {
    /// Starts the counter, and finds its scale.
    pub(crate) fn start(mut syst: SYST) -> Result<Self, NotInstructions> {
        syst.set_clock_source(SystClkSource::Core);
        syst.set_reload(PERIOD - 1);
        syst.clear_current();
        syst.enable_interrupt();
        syst.enable_counter();
        // It reads 0 until it has loaded its first value.
        while SYST::get_current() == 0 {}
        // Differences: what it takes to read the counter falls out.
        let [short, long, longest] = [100_000, 1_100_000, 3_100_000].map(ticks_of_a_loop);
        let (first, second) = (long - short, longest - long);
        let scale = (2_000_000 + first / 2).checked_div(first).ok_or(NotInstructions)?;
        // A tick more or less at either end of either.
        let off = (first * scale).abs_diff(2_000_000).max((second * scale).abs_diff(4_000_000));
        if off <= 2 * scale { Ok(Counter { scale }) } else { Err(NotInstructions) }
    }

    /// The instructions that something takes, to within two ticks, and what it returns.
    pub(crate) fn count<T>(self, operation: impl FnOnce() -> T) -> (T, u64) {
        let before = ticks();
        let result = operation();
        (result, (ticks() - before) * self.scale)
    }
}

/// Ticks since the start.
fn ticks() -> u64 {
    loop {
        let rounds = ROUNDS.load(Ordering::Relaxed);
        let left = SYST::get_current();
        // Again, if the counter began anew in between.
        if !SCB::is_pendst_pending() && ROUNDS.load(Ordering::Relaxed) == rounds {
            return u64::from(rounds) * u64::from(PERIOD) + u64::from((PERIOD - left) % PERIOD);
        }
    }
}

/// Ticks of 2 `turns` instructions.
fn ticks_of_a_loop(turns: u32) -> u64 {
    let before = ticks();
    // SAFETY: one register, which is declared, as are the flags.
    unsafe {
        asm!(
            "2:",
            "subs {turns}, {turns}, #1",
            "bne 2b",
            turns = inout(reg) turns => _,
            options(nostack),
        );
    }
    ticks() - before
}
