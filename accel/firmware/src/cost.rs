//! What an operation costs: instructions and stack.

use semihosting::{print, println};

use crate::count::Counter;
use crate::stack;

/// Of all runs of an operation.
pub(crate) struct Cost {
    runs: u64,
    instructions: u64,
    least: u64,
    most: u64,
    /// Bytes, of the run that used most.
    stack: u32,
}

impl Cost {
    /// Of none yet.
    pub(crate) const fn new() -> Self {
        Cost { runs: 0, instructions: 0, least: u64::MAX, most: 0, stack: 0 }
    }

    /// Runs an operation.
    #[inline(always)] // The caller's frame is not the operation's.
    pub(crate) fn of<T>(&mut self, counter: Counter, operation: impl FnOnce() -> T) -> T {
        let ((result, instructions), stack) = stack::measure(|| counter.count(operation));
        self.least = self.least.min(instructions);
        self.most = self.most.max(instructions);
        self.runs += 1;
        self.instructions += instructions;
        self.stack = self.stack.max(stack);
        result
    }

    /// A line: the mean of the instructions, the least and the most of them, those for each of `blocks` blocks, and the stack.
    pub(crate) fn print(&self, name: &str, blocks: Option<u64>) {
        let mean = self.instructions / self.runs.max(1);
        print!("{name}: {mean} instructions ({} to {})", self.least, self.most);
        if let Some(blocks) = blocks {
            print!(", {} a block", mean / blocks);
        }
        println!(", {} bytes of stack", self.stack);
    }
}
