//! What a trap says of the source, with `--wasm-debug` and without.

use realm_testkit::wait_for;

use crate::{cluster, guest};

/// Where the program below says that its code comes from.
const PLACE: &str = "guest.rs:42";

fn uleb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id][..], &uleb(body.len()), body].concat()
}

fn custom(name: &str, body: &[u8]) -> Vec<u8> {
    section(0, &[&uleb(name.len()), name.as_bytes(), body].concat())
}

/// A DWARF unit: its length, then itself.
fn unit(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&length[..], body].concat()
}

/// A core module whose `_start` is `unreachable`, with DWARF 4 as a compiler writes it, made by hand: one
/// unit, one file, and one line for all of its code.
fn trap_with_dwarf() -> Vec<u8> {
    // A compile unit without children: name, low_pc, high_pc as a size, stmt_list.
    const ABBREV: &[u8] = &[
        1, 0x11, 0, 0x03, 0x08, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 0,
    ];
    let info = [
        // Version, offset of the abbreviations, bytes of an address.
        &[4, 0, 0, 0, 0, 0, 4][..],
        &[1],
        b"guest.rs\0",
        &1_u32.to_le_bytes(),
        &64_u32.to_le_bytes(),
        &0_u32.to_le_bytes(),
    ]
    .concat();
    let header = [
        // Least instruction, operations, is_stmt, line base -5 and range 14, and 12 standard opcodes.
        &[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1][..],
        // No directories; one file.
        &[0],
        b"guest.rs\0\0\0\0",
        &[0],
    ]
    .concat();
    let program = [
        // From address 1: line 1 + 41; a row; 64 bytes on; the end.
        &[0, 5, 2][..],
        &1_u32.to_le_bytes(),
        &[3, 41, 1, 2, 64, 0, 1, 1],
    ]
    .concat();
    let line = [&[4, 0][..], &unit(&header), &program].concat();
    [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, &[1, 0x60, 0, 0]),
        &section(3, &[1, 0]),
        &section(7, b"\x01\x06_start\0\0"),
        &section(10, &[1, 3, 0, 0, 0x0b]),
        &custom(".debug_abbrev", ABBREV),
        &custom(".debug_info", &unit(&info)),
        &custom(".debug_line", &unit(&line)),
    ]
    .concat()
}

#[test]
fn a_trap_names_the_source_line_where_it_is_asked_to() {
    let mut realm = cluster();
    let path = realm.path().join("trap.wasm");
    std::fs::write(&path, trap_with_dwarf()).unwrap();
    let file = path.display().to_string();
    // One cache for all three: each form has its own entry.
    for (flags, named) in [
        (&[][..], false),
        (&["--wasm-debug"][..], true),
        (&[][..], false),
    ] {
        let ran = realm.run(&[&["run", &file][..], flags].concat());
        assert_ne!(ran.code, 0);
        assert!(ran.stderr.contains("unreachable"), "{}", ran.stderr);
        assert_eq!(ran.stderr.contains(PLACE), named, "{}", ran.stderr);
    }
    // A program that carries none runs as before.
    realm.ok(&["run", "--wasm-debug", &guest("hello.wasm")]);

    realm.add_node_with("one", &[], &["--wasm-debug"]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let never = ["--restart", "never", "--via", &via];
    realm.ok(&[&["push", "trap", &file][..], &never].concat());
    wait_for("the line in what the agent says of the trap", || {
        let logs = realm.run(&["logs", "trap", "--via", &via]);
        logs.stdout.contains(PLACE).then_some(())
    });
}

#[test]
fn a_file_of_the_agent_asks_for_it_too() {
    let mut realm = cluster();
    let path = realm.path().join("trap.wasm");
    std::fs::write(&path, trap_with_dwarf()).unwrap();
    let config = realm.path().join("config/agent.toml");
    std::fs::write(config, "wasm_debug = true\n").unwrap();
    let file = path.display().to_string();
    realm.add_node_with("one", &[], &["--wasm", &file]);
    wait_for("the line in the log of the agent", || {
        realm.log("one").contains(PLACE).then_some(())
    });
}
