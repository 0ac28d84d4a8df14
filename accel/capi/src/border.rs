//! Where C's pointers become Rust's references, and where panics end.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Status;

/// Runs `body`; a panic in it is a defect of ours, and is said to be one.
pub(crate) fn catch(body: impl FnOnce() -> Result<(), Status>) -> Status {
    // What a panic leaves half done is in the caller's buffers, which are told to be of no use.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::SS_OK,
        Ok(Err(status)) => status,
        Err(_) => Status::SS_INTERNAL,
    }
}

/// Bytes to read. Errors: [`Status::SS_NULL`].
///
/// # Safety
/// `start` is null, or has `length` bytes that nobody writes while they are used.
pub(crate) unsafe fn input<'a>(start: *const u8, length: usize) -> Result<&'a [u8], Status> {
    match (start.is_null(), length) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Status::SS_NULL),
        (false, _) if length > isize::MAX as usize => Err(Status::SS_BAD_LENGTH),
        // SAFETY: not null, bytes need no alignment, no longer than an object can be, and the caller's promise.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(start, length) }),
    }
}

/// Bytes to write. Errors: [`Status::SS_NULL`].
///
/// # Safety
/// `start` is null, or has `length` bytes that nobody else uses while they are.
pub(crate) unsafe fn output<'a>(start: *mut u8, length: usize) -> Result<&'a mut [u8], Status> {
    match (start.is_null(), length) {
        (true, 0) => Ok(&mut []),
        (true, _) => Err(Status::SS_NULL),
        (false, _) if length > isize::MAX as usize => Err(Status::SS_BAD_LENGTH),
        // SAFETY: not null, bytes need no alignment, no longer than an object can be, and the caller's promise.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(start, length) }),
    }
}

/// A copy of N bytes. Errors: [`Status::SS_NULL`].
///
/// # Safety
/// `start` is null or has N bytes.
pub(crate) unsafe fn array<const N: usize>(start: *const u8) -> Result<[u8; N], Status> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { input(start, N)? };
    bytes.try_into().map_err(|_| Status::SS_INTERNAL)
}

/// Writes a value. Errors: [`Status::SS_NULL`].
///
/// # Safety
/// `place` is null or takes a value.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) -> Result<(), Status> {
    if place.is_null() {
        return Err(Status::SS_NULL);
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// A name; none for null. Errors: [`Status::SS_UNKNOWN_NAME`] where it is no UTF-8.
///
/// # Safety
/// `name` is null or ends with a zero byte.
pub(crate) unsafe fn text<'a>(name: *const c_char) -> Result<Option<&'a str>, Status> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map(Some).map_err(|_| Status::SS_UNKNOWN_NAME)
}
