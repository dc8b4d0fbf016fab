//! Tries what it is told on the file system and prints one result per try.
//!
//! Arguments are `read:PATH`, `write:PATH`, `list:PATH`, `remove:PATH`, `link:TARGET=PATH`,
//! and `escape:DIR`, which tries the known ways out of a granted directory.

use std::fs;
use std::io;

fn main() {
    for arg in std::env::args().skip(1) {
        match arg.split_once(':') {
            Some(("escape", dir)) => escape(dir),
            Some((verb, path)) => report(verb, path, attempt(verb, path)),
            None => println!("{arg}: error: expected VERB:PATH"),
        }
    }
}

fn attempt(verb: &str, path: &str) -> io::Result<String> {
    match verb {
        "read" => fs::read_to_string(path),
        "write" => fs::write(path, "written by fs-probe\n").map(|()| String::new()),
        "list" => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names.join(" "))
        }
        "remove" => fs::remove_file(path).map(|()| String::new()),
        "link" => {
            let (target, link) = path
                .split_once('=')
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "TARGET=PATH"))?;
            symlink(target, link).map(|()| String::new())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "unknown verb")),
    }
}

/// Ways that have led out of a directory in one sandbox or another.
fn escape(dir: &str) {
    let climb = format!("{dir}/../../../../../../etc/passwd");
    report("read", &climb, attempt("read", &climb));
    let doubled = format!("{dir}//..//..//etc/passwd");
    report("read", &doubled, attempt("read", &doubled));
    let link = format!("{dir}/fs-probe-link");
    for target in ["/etc/passwd", "../../../../../../etc/passwd", "/"] {
        // Left over from an earlier run; absent otherwise.
        let _ = fs::remove_file(&link);
        if let Err(error) = symlink(target, &link) {
            println!("link {target}: error: {:?}", error.kind());
            continue;
        }
        report("read", &link, attempt("read", &link));
        let below = format!("{link}/etc/passwd");
        report("read", &below, attempt("read", &below));
        report("write", &link, attempt("write", &link));
    }
    let _ = fs::remove_file(&link);
}

#[cfg(target_os = "wasi")]
fn symlink(target: &str, link: &str) -> io::Result<()> {
    use std::ffi::CString;
    unsafe extern "C" {
        fn symlink(target: *const core::ffi::c_char, link: *const core::ffi::c_char) -> i32;
    }
    let target = CString::new(target)?;
    let link = CString::new(link)?;
    // SAFETY: both are terminated strings that outlive the call.
    match unsafe { symlink(target.as_ptr(), link.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "wasi"))]
fn symlink(target: &str, link: &str) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

fn report(verb: &str, path: &str, result: io::Result<String>) {
    match result {
        Ok(text) => println!("{verb} {path}: ok {}", text.trim_end()),
        Err(error) => println!("{verb} {path}: error: {:?}", error.kind()),
    }
}
