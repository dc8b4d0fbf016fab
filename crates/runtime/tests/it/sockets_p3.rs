//! A probe of `wasi:sockets` 0.3: what it is told to reach, and one number printed for each try.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::text::{MEMORY, Text, component};

/// Printed for success; a failure is 1 + the number of its error code.
pub const DONE: &str = "0";
pub const DENIED: &str = "1";
pub const NO_ROOM: &str = "4";

#[derive(Debug, Clone)]
pub enum Try {
    Tcp(SocketAddrV4),
    Udp(SocketAddrV4),
    Bind(SocketAddrV4),
    Listen,
    /// Looks the probe's name up and connects to the first answer at this port.
    Name(u16),
    /// Connects over and over, keeping the stream and dropping the socket; prints how many were made.
    Hoard(SocketAddrV4),
    /// Connects as often, dropping streams too; prints how many were made.
    Churn(SocketAddrV4, u32),
    /// Connects, sends the probe's name, and prints how many bytes came back.
    Talk(SocketAddrV4),
    /// Waits for datagrams in many calls at once; prints how many could wait.
    Receive,
}

pub const IMPORTS: &str = r#"
    (import "wasi:sockets/types@0.3.0" (instance $sockets
        (type $e (variant (case "access-denied") (case "not-supported") (case "invalid-argument") (case "out-of-memory")
            (case "timeout") (case "invalid-state") (case "address-not-bindable") (case "address-in-use")
            (case "remote-unreachable") (case "connection-refused") (case "connection-broken") (case "connection-reset")
            (case "connection-aborted") (case "datagram-too-large") (case "other" (option string))))
        (export "error-code" (type $error (eq $e)))
        (type $f (enum "ipv4" "ipv6"))
        (export "ip-address-family" (type $family (eq $f)))
        (type $v4 (tuple u8 u8 u8 u8)) (export "ipv4-address" (type $ipv4 (eq $v4)))
        (type $v6 (tuple u16 u16 u16 u16 u16 u16 u16 u16)) (export "ipv6-address" (type $ipv6 (eq $v6)))
        (type $a (variant (case "ipv4" $ipv4) (case "ipv6" $ipv6))) (export "ip-address" (type $address (eq $a)))
        (type $s4 (record (field "port" u16) (field "address" $ipv4)))
        (export "ipv4-socket-address" (type $socket4 (eq $s4)))
        (type $s6 (record (field "port" u16) (field "flow-info" u32) (field "address" $ipv6) (field "scope-id" u32)))
        (export "ipv6-socket-address" (type $socket6 (eq $s6)))
        (type $sa (variant (case "ipv4" $socket4) (case "ipv6" $socket6)))
        (export "ip-socket-address" (type $peer (eq $sa)))
        (export "tcp-socket" (type $tcp (sub resource)))
        (export "udp-socket" (type $udp (sub resource)))
        (type $incoming (stream (own $tcp)))
        (type $bytes (stream u8))
        (type $end (future (result (error $error))))
        (export "[static]tcp-socket.create" (func (param "address-family" $family) (result (result (own $tcp) (error $error)))))
        (export "[static]udp-socket.create" (func (param "address-family" $family) (result (result (own $udp) (error $error)))))
        (export "[method]tcp-socket.bind" (func (param "self" (borrow $tcp)) (param "local-address" $peer) (result (result (error $error)))))
        (export "[method]udp-socket.bind" (func (param "self" (borrow $udp)) (param "local-address" $peer) (result (result (error $error)))))
        (export "[method]tcp-socket.connect" (func async (param "self" (borrow $tcp)) (param "remote-address" $peer) (result (result (error $error)))))
        (export "[method]tcp-socket.listen" (func (param "self" (borrow $tcp)) (result (result $incoming (error $error)))))
        (export "[method]tcp-socket.send" (func (param "self" (borrow $tcp)) (param "data" $bytes) (result $end)))
        (export "[method]tcp-socket.receive" (func (param "self" (borrow $tcp)) (result (tuple $bytes $end))))
        (export "[method]udp-socket.send" (func async (param "self" (borrow $udp)) (param "data" (list u8)) (param "remote-address" (option $peer)) (result (result (error $error)))))
        (export "[method]udp-socket.receive" (func async (param "self" (borrow $udp)) (result (result (tuple (list u8) $peer) (error $error)))))))
    (alias export $sockets "tcp-socket" (type $tcp))
    (alias export $sockets "udp-socket" (type $udp))
    (alias export $sockets "ip-address" (type $ip))
    (alias export $sockets "error-code" (type $socket-error))
    (type $bytes (stream u8))
    (type $end (future (result (error $socket-error))))
    (import "wasi:sockets/ip-name-lookup@0.3.0" (instance $names
        (alias outer 1 $ip (type $outer))
        (export "ip-address" (type $address (eq $outer)))
        (type $e (variant (case "access-denied") (case "invalid-argument") (case "name-unresolvable")
            (case "temporary-resolver-failure") (case "permanent-resolver-failure") (case "other" (option string))))
        (export "error-code" (type $error (eq $e)))
        (export "resolve-addresses" (func async (param "name" string) (result (result (list $address) (error $error)))))))"#;

const FUNCTIONS: &str = r#"
    (func $outcome (call $say (if (result i32) (i32.load8_u (i32.const 2048))
        (then (i32.add (i32.const 1) (i32.load8_u (i32.const 2052)))) (else (i32.const 0)))))
    (func $tcp (result i32) (call $tcp-create (i32.const 0) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then (return (i32.const -1)))) (i32.load (i32.const 2052)))
    (func $connect (param $socket i32) (param $port i32) (param $a i32) (param $b i32) (param $c i32) (param $d i32)
        (call $tcp-connect (local.get $socket) (i32.const 0) (local.get $port) (local.get $a) (local.get $b) (local.get $c)
            (local.get $d) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)))
    (func $end-wait (param $end i32) (local $set i32)
        (if (i32.eq (call $end-read (local.get $end) (i32.const 2100)) (i32.const -1)) (then
            (call $join (local.get $end) (local.tee $set (call $set-new)))
            (drop (call $set-wait (local.get $set) (i32.const 2200)))
            (call $join (local.get $end) (i32.const 0))
            (call $set-drop (local.get $set)))))
    ;; Connects, takes the stream and lets the socket go, up to `most` times.
    (func $hoard (param $most i32) (param $keep i32) (param $port i32) (param $a i32) (param $b i32) (param $c i32) (param $d i32) (result i32)
        (local $made i32) (local $socket i32)
        (block (loop
            (br_if 1 (i32.ge_u (local.get $made) (local.get $most)))
            (br_if 1 (i32.eq (local.tee $socket (call $tcp)) (i32.const -1)))
            (call $connect (local.get $socket) (local.get $port) (local.get $a) (local.get $b) (local.get $c) (local.get $d))
            (if (i32.load8_u (i32.const 2048)) (then (call $outcome) unreachable))
            (call $tcp-receive (local.get $socket) (i32.const 2048))
            (call $tcp-drop (local.get $socket))
            (if (i32.eqz (local.get $keep)) (then
                (call $stream-drop (i32.load (i32.const 2048)))
                ;; The end is told once the host has let the stream go.
                (call $end-wait (i32.load (i32.const 2052)))
                (call $end-drop (i32.load (i32.const 2052)))))
            (local.set $made (i32.add (local.get $made) (i32.const 1)))
            (br 0)))
        (local.get $made))
    ;; The result of a read or a write: how many bytes, now or when it is done.
    (func $moved (param $stream i32) (param $status i32) (result i32) (local $set i32)
        (if (i32.eq (local.get $status) (i32.const -1)) (then
            (call $join (local.get $stream) (local.tee $set (call $set-new)))
            (drop (call $set-wait (local.get $set) (i32.const 2200)))
            (local.set $status (i32.load (i32.const 2204)))
            (call $join (local.get $stream) (i32.const 0))
            (call $set-drop (local.get $set))))
        (i32.shr_u (local.get $status) (i32.const 4)))
    (func $talk (param $socket i32) (param $length i32) (result i32)
        (local $pair i64) (local $writer i32) (local $sent i32) (local $heard i32)
        (local.set $pair (call $stream-new))
        (local.set $writer (i32.wrap_i64 (i64.shr_u (local.get $pair) (i64.const 32))))
        (local.set $sent (call $tcp-send (local.get $socket) (i32.wrap_i64 (local.get $pair))))
        (if (i32.ne (local.get $length)
                (call $moved (local.get $writer) (call $stream-write (local.get $writer) (i32.const 1024) (local.get $length))))
            (then unreachable))
        (call $stream-close (local.get $writer))
        (call $end-wait (local.get $sent))
        (call $end-drop (local.get $sent))
        (call $tcp-receive (local.get $socket) (i32.const 2048))
        (local.set $heard (call $moved (i32.load (i32.const 2048))
            (call $stream-read (i32.load (i32.const 2048)) (i32.const 3000) (i32.const 64))))
        (call $stream-drop (i32.load (i32.const 2048)))
        (call $end-wait (i32.load (i32.const 2052)))
        (call $end-drop (i32.load (i32.const 2052)))
        (local.get $heard))
    (func $wait-in-many (result i32) (local $socket i32) (local $waiting i32)
        (call $udp-create (i32.const 0) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then unreachable))
        (local.set $socket (i32.load (i32.const 2052)))
        (call $udp-bind (local.get $socket) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then unreachable))
        (block (loop
            (br_if 1 (i32.gt_u (local.get $waiting) (i32.const 1000)))
            ;; A call that waits is a subtask; one that is answered at once is not.
            (br_if 1 (i32.eq (i32.and (call $udp-receive (local.get $socket) (i32.const 2048)) (i32.const 15)) (i32.const 2)))
            (local.set $waiting (i32.add (local.get $waiting) (i32.const 1)))
            (br 0)))
        (call $outcome)
        (local.get $waiting))"#;

/// The functions that the probe uses: name, `canon` expression and core type.
pub fn calls() -> Vec<(&'static str, String, String)> {
    let lower = |instance: &str, name: &str, options: &str| {
        format!("(canon lower (func ${instance} \"{name}\") {options})")
    };
    let peer = "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";
    let sockets = |name: &str| lower("sockets", name, MEMORY);
    vec![
        (
            "tcp-create",
            sockets("[static]tcp-socket.create"),
            "(param i32 i32)".to_owned(),
        ),
        (
            "udp-create",
            sockets("[static]udp-socket.create"),
            "(param i32 i32)".to_owned(),
        ),
        (
            "tcp-bind",
            sockets("[method]tcp-socket.bind"),
            format!("(param i32 {peer} i32)"),
        ),
        (
            "udp-bind",
            sockets("[method]udp-socket.bind"),
            format!("(param i32 {peer} i32)"),
        ),
        (
            "tcp-connect",
            sockets("[method]tcp-socket.connect"),
            format!("(param i32 {peer} i32)"),
        ),
        (
            "tcp-listen",
            sockets("[method]tcp-socket.listen"),
            "(param i32 i32)".to_owned(),
        ),
        (
            "tcp-receive",
            sockets("[method]tcp-socket.receive"),
            "(param i32 i32)".to_owned(),
        ),
        (
            "udp-send",
            sockets("[method]udp-socket.send"),
            format!("(param i32 i32 i32 i32 {peer} i32)"),
        ),
        (
            "udp-receive",
            lower(
                "sockets",
                "[method]udp-socket.receive",
                &format!("async {MEMORY}"),
            ),
            "(param i32 i32) (result i32)".to_owned(),
        ),
        (
            "resolve",
            lower("names", "resolve-addresses", MEMORY),
            "(param i32 i32 i32)".to_owned(),
        ),
        (
            "tcp-drop",
            "(canon resource.drop $tcp)".to_owned(),
            "(param i32)".to_owned(),
        ),
        (
            "udp-drop",
            "(canon resource.drop $udp)".to_owned(),
            "(param i32)".to_owned(),
        ),
        (
            "stream-drop",
            "(canon stream.drop-readable $bytes)".to_owned(),
            "(param i32)".to_owned(),
        ),
        (
            "end-read",
            format!("(canon future.read $end async {MEMORY})"),
            "(param i32 i32) (result i32)".to_owned(),
        ),
        (
            "tcp-send",
            sockets("[method]tcp-socket.send"),
            "(param i32 i32) (result i32)".to_owned(),
        ),
        (
            "stream-new",
            "(canon stream.new $bytes)".to_owned(),
            "(result i64)".to_owned(),
        ),
        (
            "stream-write",
            "(canon stream.write $bytes async (memory $memory))".to_owned(),
            "(param i32 i32 i32) (result i32)".to_owned(),
        ),
        (
            "stream-read",
            "(canon stream.read $bytes async (memory $memory))".to_owned(),
            "(param i32 i32 i32) (result i32)".to_owned(),
        ),
        (
            "stream-close",
            "(canon stream.drop-writable $bytes)".to_owned(),
            "(param i32)".to_owned(),
        ),
        (
            "join",
            "(canon waitable.join)".to_owned(),
            "(param i32 i32)".to_owned(),
        ),
        (
            "set-new",
            "(canon waitable-set.new)".to_owned(),
            "(result i32)".to_owned(),
        ),
        (
            "set-wait",
            "(canon waitable-set.wait (memory $memory))".to_owned(),
            "(param i32 i32) (result i32)".to_owned(),
        ),
        (
            "set-drop",
            "(canon waitable-set.drop)".to_owned(),
            "(param i32)".to_owned(),
        ),
        (
            "end-drop",
            "(canon future.drop-readable $end)".to_owned(),
            "(param i32)".to_owned(),
        ),
    ]
}

/// A component that tries each in turn. `name` is for [`Try::Name`].
pub fn probe(tries: &[Try], name: &str) -> String {
    let calls = calls();
    let calls: Vec<_> = calls
        .iter()
        .map(|(name, canon, ty)| (*name, canon.as_str(), ty.as_str()))
        .collect();
    let steps: String = tries.iter().map(|step| code(step, name.len())).collect();
    component(&Text {
        imports: IMPORTS,
        calls: &calls,
        data: name,
        functions: FUNCTIONS,
        body: &format!("(local $socket i32) (local $found i32) {steps} (call $exit (i32.const 0))"),
    })
}

fn code(step: &Try, name_length: usize) -> String {
    let numbers = |address: &SocketAddrV4| {
        let [a, b, c, d] = address.ip().octets();
        [
            u32::from(address.port()),
            a.into(),
            b.into(),
            c.into(),
            d.into(),
        ]
        .map(|part| format!("(i32.const {part})"))
        .join(" ")
    };
    let rest =
        "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)";
    let with_tcp = |call: &str| {
        format!(
            "(local.set $socket (call $tcp))
            (if (i32.eq (local.get $socket) (i32.const -1)) (then (call $outcome)) (else
                {call} (call $outcome) (call $tcp-drop (local.get $socket))))"
        )
    };
    match step {
        Try::Tcp(to) => with_tcp(&format!("(call $connect (local.get $socket) {})", numbers(to))),
        Try::Bind(to) => with_tcp(&format!(
            "(call $tcp-bind (local.get $socket) (i32.const 0) {} {rest} (i32.const 2048))",
            numbers(to)
        )),
        Try::Listen => with_tcp("(call $tcp-listen (local.get $socket) (i32.const 2048))"),
        Try::Udp(to) => format!(
            "(call $udp-create (i32.const 0) (i32.const 2048))
            (if (i32.load8_u (i32.const 2048)) (then (call $outcome)) (else
                (local.set $socket (i32.load (i32.const 2052)))
                (call $udp-send (local.get $socket) (i32.const 1024) (i32.const {name_length}) (i32.const 1) (i32.const 0) {} {rest} (i32.const 2048))
                (call $outcome) (call $udp-drop (local.get $socket))))",
            numbers(to)
        ),
        Try::Name(port) => {
            let byte = |offset: u32| format!("(i32.load8_u offset={offset} (local.get $found))");
            let connect = with_tcp(&format!(
                "(call $connect (local.get $socket) (i32.const {port}) {} {} {} {})",
                byte(2),
                byte(3),
                byte(4),
                byte(5)
            ));
            // No answer that may be used is an empty list: 100.
            format!(
                "(call $resolve (i32.const 1024) (i32.const {name_length}) (i32.const 2048))
                (if (i32.load8_u (i32.const 2048)) (then (call $outcome)) (else
                    (local.set $found (i32.load (i32.const 2052)))
                    (if (i32.load (i32.const 2056)) (then {connect}) (else (call $say (i32.const 100))))))"
            )
        }
        Try::Hoard(to) => format!("(call $say (call $hoard (i32.const 1000) (i32.const 1) {}))", numbers(to)),
        Try::Churn(to, times) => {
            format!("(call $say (call $hoard (i32.const {times}) (i32.const 0) {}))", numbers(to))
        }
        Try::Talk(to) => with_tcp(&format!(
            "(call $connect (local.get $socket) {})
            (if (i32.load8_u (i32.const 2048)) (then (call $outcome) unreachable))
            (call $say (call $talk (local.get $socket) (i32.const {name_length})))
            (i32.store8 (i32.const 2048) (i32.const 0))",
            numbers(to)
        )),
        Try::Receive => "(call $say (call $wait-in-many))".to_owned(),
    }
}

/// Nothing listens there.
pub const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
