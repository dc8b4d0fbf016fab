//! Functions that the standard library names and an older wasi-libc lacks.
//!
//! Each fails the way its caller expects of an unsupported feature. They are weak
//! and come last in the archive, so that a libc which has the real ones wins.

#![no_std]
#![allow(internal_features)]
#![feature(linkage, thread_local)]

use core::ffi::{c_char, c_int, c_void};

type Pointer = *mut c_void;

/// `EAGAIN`, `ENOSYS` and `EAI_FAIL` as wasi-libc numbers them.
const TRY_AGAIN: c_int = 6;
const NOT_SUPPORTED: c_int = 52;
const LOOKUP_FAILED: c_int = -4;

unsafe extern "C" {
    #[thread_local]
    static mut errno: c_int;
}

fn refuse() -> c_int {
    unsafe { errno = NOT_SUPPORTED };
    -1
}

macro_rules! absent {
    ($($name:ident($($arg:ty),*) -> $ret:ty = $value:expr;)*) => {$(
        #[linkage = "weak"]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $arg),*) -> $ret { $value }
    )*};
}

absent! {
    bind(c_int, Pointer, u32) -> c_int = refuse();
    chmod(Pointer, u32) -> c_int = refuse();
    connect(c_int, Pointer, u32) -> c_int = refuse();
    fchmod(c_int, u32) -> c_int = refuse();
    freeaddrinfo(Pointer) -> () = ();
    gai_strerror(c_int) -> *const c_char = c"name lookup is not supported".as_ptr();
    getaddrinfo(Pointer, Pointer, Pointer, Pointer) -> c_int = LOOKUP_FAILED;
    getpeername(c_int, Pointer, Pointer) -> c_int = refuse();
    getsockname(c_int, Pointer, Pointer) -> c_int = refuse();
    listen(c_int, c_int) -> c_int = refuse();
    pthread_attr_destroy(Pointer) -> c_int = 0;
    pthread_attr_init(Pointer) -> c_int = 0;
    pthread_attr_setstacksize(Pointer, usize) -> c_int = 0;
    pthread_create(Pointer, Pointer, Pointer, Pointer) -> c_int = TRY_AGAIN;
    pthread_detach(Pointer) -> c_int = 0;
    pthread_join(Pointer, Pointer) -> c_int = 0;
    realpath(Pointer, Pointer) -> Pointer = { refuse(); core::ptr::null_mut() };
    recvfrom(c_int, Pointer, usize, c_int, Pointer, Pointer) -> isize = refuse() as isize;
    sendto(c_int, Pointer, usize, c_int, Pointer, u32) -> isize = refuse() as isize;
    setsockopt(c_int, c_int, c_int, Pointer, u32) -> c_int = refuse();
    socket(c_int, c_int, c_int) -> c_int = refuse();
}
