//! A program of `realm run` has the terminal's streams: what is typed, what is written, and what is told.

use std::{io::Write as _, process::Stdio};

use crate::{cluster, guest};

#[test]
fn the_three_streams_are_those_of_the_command() {
    // More than any pipe or buffer on the way holds, and every byte there is.
    let input: Vec<u8> = (0_u32..300_000)
        .map(|at| (at % 251) as u8 ^ (at >> 9) as u8)
        .collect();
    let person = cluster();
    for program in ["copy.wasm", "copy.p1.wasm"] {
        let mut child = person
            .command()
            .args(["run", "--quiet", &guest(program)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let typed = input.clone();
        // Beside it: the program answers before it has read everything.
        let typing = std::thread::spawn(move || stdin.write_all(&typed));
        let output = child.wait_with_output().unwrap();
        typing.join().unwrap().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{program}: {told}");
        assert!(
            output.stdout == input,
            "{program}: {} bytes",
            output.stdout.len()
        );
        assert_eq!(told, "copied 300000 bytes\n", "{program}");
    }
}
