//! Interfaces of 0.2 and 0.3 as lists of functions to call, and components made of such calls.

use std::sync::Arc;

use crate::{
    calls::{Callee, Give, Want, program},
    file_acts::{self, Preview},
    malformed::Dice,
    scene::wasm,
    sockets_p3,
    text::{MEMORY, Text, component},
};

/// What each wants, and the handles that it gives. A figure: a resource of this kind; x and a figure: such a one that is
/// given away; d: flags or a small number; o: a case; l: 64 bits; t: a text; b: bytes; a: an address; s: a list of the
/// first kind; r: where the result goes. What is given: = directly, > in a result, @ behind one another, * in a list.
const FILES: &str = "directories:r*0 open:0dtddr>0 set-size:0lr mkdir:0tr rmdir:0tr unlink:0tr stat:0dtr touch:0dtoldoldr \
    readlink:0tr symlink:0ttr link:0dt0tr rename:0t0tr close:x0";
const SOCKETS: &str = "tcp-create:or>0 udp-create:or>1 tcp-bind:0ar udp-bind:1ar tcp-connect:0ar tcp-listen:0r tcp-receive:0r@23 \
    udp-send:1boar udp-receive:1r! resolve:tr tcp-drop:x0 udp-drop:x1 stream-drop:x2 end-drop:x3 end-read:3r! tcp-send:0x2=3 \
    stream-new:! stream-read:2b! join:24 set-new:=4 set-drop:x4";
const POLLS: &str = "subscribe:l=0 subscribe-at:l=0 now:! ready:0! block:0 poll:sr drop:x0 stdout:=1 stdin:=2 print-some:1br \
    check:1r flush:1r write-some:1br skip:2lr read:2lr out-drop:x1 in-drop:x2 out-ready:1=0 in-ready:2=0 random:lr number:!";

const IO: &str = r#"
    (import "wasi:io/poll@0.2.0" (instance $poll
        (export "pollable" (type $p (sub resource)))
        (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
        (export "[method]pollable.block" (func (param "self" (borrow $p))))
        (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (alias outer 1 $pollable (type $outer)) (export "pollable" (type $p (eq $outer)))
        (export "now" (func (result u64)))
        (export "subscribe-instant" (func (param "when" u64) (result (own $p))))
        (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
    (import "wasi:random/random@0.2.0" (instance $random
        (export "get-random-u64" (func (result u64)))
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
    (import "wasi:io/streams@0.2.1" (instance $more
        (alias outer 1 $pollable (type $outer-pollable)) (export "pollable" (type $p (eq $outer-pollable)))
        (alias outer 1 $io-error (type $outer-error)) (export "error" (type $e (eq $outer-error)))
        (type $s (variant (case "last-operation-failed" (own $e)) (case "closed"))) (export "stream-error" (type $error (eq $s)))
        (export "output-stream" (type $out (sub resource)))
        (export "input-stream" (type $in (sub resource)))
        (export "[method]output-stream.check-write" (func (param "self" (borrow $out)) (result (result u64 (error $error)))))
        (export "[method]output-stream.flush" (func (param "self" (borrow $out)) (result (result (error $error)))))
        (export "[method]output-stream.write" (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $error)))))
        (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $error)))))
        (export "[method]output-stream.subscribe" (func (param "self" (borrow $out)) (result (own $p))))
        (export "[method]input-stream.skip" (func (param "self" (borrow $in)) (param "len" u64) (result (result u64 (error $error)))))
        (export "[method]input-stream.read" (func (param "self" (borrow $in)) (param "len" u64) (result (result (list u8) (error $error)))))
        (export "[method]input-stream.subscribe" (func (param "self" (borrow $in)) (result (own $p))))))
    (alias export $more "output-stream" (type $out))
    (alias export $more "input-stream" (type $in))
    (import "wasi:cli/stdout@0.2.1" (instance $outs
        (alias outer 1 $out (type $outer)) (export "output-stream" (type $o (eq $outer)))
        (export "get-stdout" (func (result (own $o))))))
    (import "wasi:cli/stdin@0.2.1" (instance $ins
        (alias outer 1 $in (type $outer)) (export "input-stream" (type $o (eq $outer)))
        (export "get-stdin" (func (result (own $o))))))"#;

type Call = (&'static str, String, String);

/// Some interfaces, and what to do with them.
pub struct World {
    imports: String,
    calls: Vec<Call>,
    pub callees: Vec<Callee>,
}

/// With a port that the programs may reach.
pub fn worlds(port: u16) -> [World; 4] {
    let files = |preview| {
        let close = (
            "close",
            "(canon resource.drop $file)".to_owned(),
            "(param i32)",
        );
        let calls = file_acts::calls().into_iter().chain([close]);
        let calls = calls.map(|(name, canon, ty)| (name, canon, ty.to_owned()));
        World::new(file_acts::imports(preview), calls.collect(), FILES, port)
    };
    [
        files(Preview::P2),
        files(Preview::P3),
        World::new(
            sockets_p3::IMPORTS.to_owned(),
            sockets_p3::calls(),
            SOCKETS,
            port,
        ),
        World::new(IO.to_owned(), io_calls(), POLLS, port),
    ]
}

fn io_calls() -> Vec<Call> {
    let lower = |instance: &str, name: &str| {
        format!("(canon lower (func ${instance} \"{name}\") {MEMORY})")
    };
    let call = |name, canon: String, ty: &str| (name, canon, ty.to_owned());
    let number = "(param i32) (result i32)";
    vec![
        call(
            "subscribe",
            lower("clock", "subscribe-duration"),
            "(param i64) (result i32)",
        ),
        call(
            "subscribe-at",
            lower("clock", "subscribe-instant"),
            "(param i64) (result i32)",
        ),
        call("now", lower("clock", "now"), "(result i64)"),
        call("ready", lower("poll", "[method]pollable.ready"), number),
        call(
            "block",
            lower("poll", "[method]pollable.block"),
            "(param i32)",
        ),
        call("poll", lower("poll", "poll"), "(param i32 i32 i32)"),
        call(
            "drop",
            "(canon resource.drop $pollable)".to_owned(),
            "(param i32)",
        ),
        call("stdout", lower("outs", "get-stdout"), "(result i32)"),
        call("stdin", lower("ins", "get-stdin"), "(result i32)"),
        call(
            "print-some",
            lower("more", "[method]output-stream.blocking-write-and-flush"),
            "(param i32 i32 i32 i32)",
        ),
        call(
            "check",
            lower("more", "[method]output-stream.check-write"),
            "(param i32 i32)",
        ),
        call(
            "flush",
            lower("more", "[method]output-stream.flush"),
            "(param i32 i32)",
        ),
        call(
            "write-some",
            lower("more", "[method]output-stream.write"),
            "(param i32 i32 i32 i32)",
        ),
        call(
            "skip",
            lower("more", "[method]input-stream.skip"),
            "(param i32 i64 i32)",
        ),
        call(
            "read",
            lower("more", "[method]input-stream.read"),
            "(param i32 i64 i32)",
        ),
        call(
            "out-drop",
            "(canon resource.drop $out)".to_owned(),
            "(param i32)",
        ),
        call(
            "in-drop",
            "(canon resource.drop $in)".to_owned(),
            "(param i32)",
        ),
        call(
            "out-ready",
            lower("more", "[method]output-stream.subscribe"),
            number,
        ),
        call(
            "in-ready",
            lower("more", "[method]input-stream.subscribe"),
            number,
        ),
        call(
            "random",
            lower("random", "get-random-bytes"),
            "(param i64 i32)",
        ),
        call("number", lower("random", "get-random-u64"), "(result i64)"),
    ]
}

fn callee(line: &str, port: u16) -> Callee {
    let (name, code) = line.split_once(':').unwrap();
    let (mut wants, mut gives, mut returns) = (Vec::new(), Vec::new(), false);
    let mut letters = code.chars();
    while let Some(letter) = letters.next() {
        let mut kind = || letters.next().and_then(|kind| kind.to_digit(10)).unwrap() as usize;
        match letter {
            'd' => wants.push(Want::Small),
            'o' => wants.push(Want::Case),
            'l' => wants.push(Want::Long),
            't' => wants.push(Want::Path),
            'b' => wants.push(Want::Buffer),
            'a' => wants.push(Want::Address(port)),
            's' => wants.push(Want::Handles(0)),
            'r' => wants.push(Want::Return),
            'x' => wants.push(Want::Handle {
                kind: kind(),
                given: true,
            }),
            '!' => returns = true,
            '=' => gives.push(Give::Directly(kind())),
            '>' => gives.push(Give::If {
                first: 0,
                at: 4,
                kind: kind(),
            }),
            '*' => gives.push(Give::Listed(kind())),
            '@' => {
                let (first, second) = (kind(), kind());
                gives.push(Give::At { at: 0, kind: first });
                gives.push(Give::At {
                    at: 4,
                    kind: second,
                });
            }
            figure => {
                let kind = figure.to_digit(10).unwrap() as usize;
                wants.push(Want::Handle { kind, given: false });
            }
        }
    }
    Callee {
        name: name.into(),
        wants,
        returns,
        gives,
    }
}

impl World {
    fn new(imports: String, calls: Vec<Call>, list: &str, port: u16) -> Self {
        Self {
            imports,
            calls,
            callees: list
                .split_whitespace()
                .map(|line| callee(line, port))
                .collect(),
        }
    }

    pub fn component(&self, dice: &mut Dice) -> Arc<[u8]> {
        let program = program(dice, &self.callees);
        let calls = self.calls.iter();
        let calls: Vec<_> = calls
            .map(|(name, canon, ty)| (*name, canon.as_str(), ty.as_str()))
            .collect();
        wasm(&component(&Text {
            imports: &self.imports,
            calls: &calls,
            functions: &program.fields,
            body: &program.body,
            ..Text::default()
        }))
    }
}
