//! Key formats against ssh-keygen and openssl, where they are installed.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use realm_identity::{
    SecretKey,
    format::{
        EncryptionNonce, Format, FormatError, encrypt_secret, is_encrypted, read_public,
        read_secret, sshsig, write_public, write_secret,
    },
};

use crate::scene::{key, owner};

const FORMATS: [Format; 3] = [Format::Base58, Format::OpenSsh, Format::Pem];

const NONCE: EncryptionNonce = EncryptionNonce {
    salt: [7; 16],
    check: 0x0102_0304,
};

/// Says so, and returns false, where `program` is not installed.
fn installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("-?")
        .stdin(Stdio::null())
        .output()
        .is_ok();
    if !found {
        crate::skipped::skipped(&format!("{program} is not installed"));
    }
    found
}

/// Runs a program to its end and returns its standard output; panics with its words if it fails.
fn run(dir: &Path, program: &str, args: &[&str], input: &[u8]) -> String {
    let (ok, out) = attempt(dir, program, args, input);
    assert!(ok, "{program} {args:?}: {out}");
    out
}

fn attempt(dir: &Path, program: &str, args: &[&str], input: &[u8]) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early may close its input first.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (
        output.status.success(),
        if output.status.success() { out } else { err },
    )
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn same(read: &SecretKey, written: &SecretKey) -> bool {
    read.seed() == written.seed()
}

#[test]
fn keys_survive_each_form() {
    for format in FORMATS {
        let text = write_public(&owner().public(), format, "me@here").unwrap();
        assert_eq!(read_public(&text).unwrap(), owner().public(), "{text}");
        let text = write_secret(&owner(), format, "me@here").unwrap();
        assert!(
            same(&read_secret(&text, None).unwrap(), &owner()),
            "{format:?}"
        );
        assert!(!is_encrypted(&text).unwrap());
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let text = encrypt_secret(&owner(), "me@here", b"correct horse", NONCE).unwrap();
    assert!(is_encrypted(&text).unwrap());
    assert!(same(
        &read_secret(&text, Some(b"correct horse")).unwrap(),
        &owner()
    ));
    assert!(matches!(
        read_secret(&text, None),
        Err(FormatError::PassphraseNeeded)
    ));
    assert!(matches!(
        read_secret(&text, Some(b"wrong")),
        Err(FormatError::PassphraseWrong)
    ));
}

#[test]
fn wrong_texts_say_what_is_wrong() {
    let public = write_public(&owner().public(), Format::OpenSsh, "").unwrap();
    assert!(matches!(
        read_secret(&public, None),
        Err(FormatError::PublicForSecret)
    ));
    for format in FORMATS {
        let secret = write_secret(&owner(), format, "").unwrap();
        assert!(matches!(
            read_public(&secret),
            Err(FormatError::SecretForPublic)
        ));
    }
    assert!(matches!(
        read_public("hello"),
        Err(FormatError::UnknownPublic)
    ));
    assert!(matches!(
        read_secret("hello", None),
        Err(FormatError::UnknownSecret)
    ));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
    assert!(matches!(
        read_secret(encrypted, None),
        Err(FormatError::EncryptedPem)
    ));
    let long = "x".repeat(20_000);
    assert!(matches!(
        read_public(&long),
        Err(FormatError::TooLong { .. })
    ));
}

#[test]
fn a_format_is_named_in_one_word() {
    let of = |word: &str| word.parse::<Format>();
    assert_eq!(of("base58").unwrap(), Format::Base58);
    assert_eq!(of("openssh").unwrap(), Format::OpenSsh);
    assert_eq!(of("pem").unwrap(), Format::Pem);
    for wrong in ["der", "PEM", ""] {
        let error = of(wrong).unwrap_err();
        assert!(matches!(&error, FormatError::UnknownFormat(word) if word == wrong));
        // Who mistyped it learns which there are.
        assert!(error.to_string().ends_with("use base58, openssh or pem"));
    }
}

/// The PEM text with `to` for `from`, which its bytes hold once.
fn replaced(pem: &str, from: &[u8], to: &[u8]) -> String {
    let (first, rest) = pem.split_once('\n').unwrap();
    let (body, last) = rest.trim_end().rsplit_once('\n').unwrap();
    let bytes = STANDARD.decode(body.replace('\n', "")).unwrap();
    let places = bytes.windows(from.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, part)| *part == from)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        panic!("{places:?}");
    };
    let bytes = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    let text = STANDARD.encode(bytes).into_bytes();
    let lines = text
        .chunks(70)
        .map(|line| std::str::from_utf8(line).unwrap());
    let lines: Vec<&str> = [first].into_iter().chain(lines).chain([last]).collect();
    format!("{}\n", lines.join("\n"))
}

#[test]
fn a_file_asks_for_1024_rounds_of_bcrypt_and_no_more() {
    // Without a passphrase, so that no round is done: whether it is asked for one says enough.
    let file = encrypt_secret(&owner(), "", b"correct horse", NONCE).unwrap();
    // The rounds stand behind the salt.
    let asking = |rounds: u32| [&NONCE.salt[..], &rounds.to_be_bytes()].concat();
    let read = |rounds| {
        let file = replaced(&file, &asking(24), &asking(rounds));
        read_secret(&file, None).unwrap_err()
    };
    for rounds in [24, 1024] {
        let error = read(rounds);
        assert!(matches!(error, FormatError::PassphraseNeeded), "{error}");
    }
    for many in [1025, u32::MAX] {
        let error = read(many);
        assert!(
            matches!(error, FormatError::TooManyRounds { rounds } if rounds == many),
            "{error}"
        );
    }
}

#[test]
fn a_private_key_beside_anothers_public_key_is_refused() {
    use ed25519_dalek::pkcs8::{
        EncodePrivateKey as _, KeypairBytes, PublicKeyBytes, spki::der::pem::LineEnding,
    };
    use ssh_key::{private, public};
    let (seed, other) = (owner().seed(), *key(2).public().as_bytes());
    let pem = |public| {
        let pair = KeypairBytes {
            secret_key: *seed,
            public_key: Some(PublicKeyBytes(public)),
        };
        pair.to_pkcs8_pem(LineEnding::LF).unwrap()
    };
    let read = read_secret(&pem(other), None);
    assert!(matches!(read, Err(FormatError::Mismatch)));
    let own = read_secret(&pem(*owner().public().as_bytes()), None);
    assert!(same(&own.unwrap(), &owner()));
    let pair = private::Ed25519Keypair {
        public: public::Ed25519PublicKey(other),
        private: private::Ed25519PrivateKey::from_bytes(&seed),
    };
    let file = ssh_key::PrivateKey::new(private::KeypairData::Ed25519(pair), "").unwrap();
    let file = file.to_openssh(ssh_key::LineEnding::LF).unwrap();
    assert!(read_secret(&file, None).is_err());
}

#[test]
fn every_cut_of_every_form_is_refused() {
    for format in FORMATS {
        let public = write_public(&owner().public(), format, "").unwrap();
        let secret = write_secret(&owner(), format, "").unwrap();
        for length in 0..public.trim_end().len() {
            let cut = read_public(&public[..length]);
            assert_ne!(cut.ok(), Some(owner().public()), "{}", &public[..length]);
        }
        for length in 0..secret.trim_end().len() {
            if let Ok(cut) = read_secret(&secret[..length], None) {
                assert!(!same(&cut, &owner()), "{format:?} cut at {length}");
            }
        }
    }
}

#[test]
fn ssh_keygen_reads_ours() {
    if !installed("ssh-keygen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = write_public(&owner().public(), Format::OpenSsh, "me@here").unwrap();
    write_private(
        &dir.path().join("plain"),
        &write_secret(&owner(), Format::OpenSsh, "me@here").unwrap(),
    );
    let shown = run(dir.path(), "ssh-keygen", &["-y", "-f", "plain"], b"");
    assert_eq!(shown.trim(), line);
    let locked = encrypt_secret(&owner(), "me@here", b"correct horse", NONCE).unwrap();
    write_private(&dir.path().join("locked"), &locked);
    let open = ["-y", "-P", "correct horse", "-f", "locked"];
    assert_eq!(run(dir.path(), "ssh-keygen", &open, b"").trim(), line);
    let wrong = ["-y", "-P", "wrong", "-f", "locked"];
    assert!(!attempt(dir.path(), "ssh-keygen", &wrong, b"").0);
}

#[test]
fn ours_reads_ssh_keygen() {
    if !installed("ssh-keygen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, passphrase) in [("plain", ""), ("locked", "correct horse")] {
        let make = [
            "-q", "-t", "ed25519", "-N", passphrase, "-C", "me", "-f", name,
        ];
        run(dir.path(), "ssh-keygen", &make, b"");
        let line = fs::read_to_string(dir.path().join(format!("{name}.pub"))).unwrap();
        let file = fs::read_to_string(dir.path().join(name)).unwrap();
        let passphrase = Some(passphrase.as_bytes()).filter(|p| !p.is_empty());
        assert_eq!(is_encrypted(&file).unwrap(), passphrase.is_some());
        let secret = read_secret(&file, passphrase).unwrap();
        assert_eq!(secret.public(), read_public(&line).unwrap());
    }
    run(
        dir.path(),
        "ssh-keygen",
        &["-q", "-t", "ecdsa", "-N", "", "-f", "other"],
        b"",
    );
    let line = fs::read_to_string(dir.path().join("other.pub")).unwrap();
    assert!(matches!(
        read_public(&line),
        Err(FormatError::OtherAlgorithm(_))
    ));
    let file = fs::read_to_string(dir.path().join("other")).unwrap();
    assert!(matches!(
        read_secret(&file, None),
        Err(FormatError::OtherAlgorithm(_))
    ));
}

#[test]
fn openssl_reads_ours_and_ours_reads_openssl() {
    if !installed("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write_private(
        &dir.path().join("key"),
        &write_secret(&owner(), Format::Pem, "").unwrap(),
    );
    let public = run(
        dir.path(),
        "openssl",
        &["pkey", "-in", "key", "-pubout"],
        b"",
    );
    assert_eq!(
        public,
        write_public(&owner().public(), Format::Pem, "").unwrap()
    );
    let made = run(
        dir.path(),
        "openssl",
        &["genpkey", "-algorithm", "ed25519"],
        b"",
    );
    let public = run(dir.path(), "openssl", &["pkey", "-pubout"], made.as_bytes());
    let secret = read_secret(&made, None).unwrap();
    assert_eq!(secret.public(), read_public(&public).unwrap());
    let other = run(
        dir.path(),
        "openssl",
        &["genpkey", "-algorithm", "x25519"],
        b"",
    );
    assert!(read_secret(&other, None).is_err());
}

#[test]
fn signatures_are_for_one_key_namespace_and_content() {
    let signature = sshsig::sign(&owner(), sshsig::MANIFEST_NAMESPACE, b"content").unwrap();
    let check = |seed, namespace, content: &[u8]| {
        sshsig::verify(&key(seed).public(), namespace, content, &signature)
    };
    assert!(check(1, "realm-manifest", b"content").is_ok());
    assert!(matches!(
        check(2, "realm-manifest", b"content"),
        Err(sshsig::SshSigError::OtherKey { .. })
    ));
    assert!(matches!(
        check(1, "file", b"content"),
        Err(sshsig::SshSigError::OtherNamespace { .. })
    ));
    assert!(matches!(
        check(1, "realm-manifest", b"other"),
        Err(sshsig::SshSigError::Bad)
    ));
    assert!(matches!(
        sshsig::verify(&owner().public(), "realm-manifest", b"content", "nonsense"),
        Err(sshsig::SshSigError::Malformed(_))
    ));
    assert!(matches!(
        sshsig::sign(&owner(), "", b"x"),
        Err(sshsig::SignError::Namespace(_))
    ));
}

#[test]
fn a_signature_with_more_in_it_than_ours_is_bad() {
    let namespace = sshsig::MANIFEST_NAMESPACE;
    let signature = sshsig::sign(&owner(), namespace, b"content").unwrap();
    let verify = |text: &str| sshsig::verify(&owner().public(), namespace, b"content", text);
    verify(&signature).unwrap();
    // Nobody signed either: the field reserved for later, and the algorithm's name.
    let reserved = replaced(
        &signature,
        b"realm-manifest\0\0\0\0",
        b"realm-manifest\0\0\0\x01x",
    );
    let algorithm = replaced(
        &signature,
        b"\0\0\0\x53\0\0\0\x0bssh-ed25519",
        b"\0\0\0\x54\0\0\0\x0crsa-sha2-512",
    );
    for text in [reserved, algorithm] {
        let error = verify(&text).unwrap_err();
        assert!(matches!(error, sshsig::SshSigError::Bad), "{error:?}");
    }
}

#[test]
fn ssh_keygen_verifies_our_signature_and_we_verify_its() {
    if !installed("ssh-keygen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (content, namespace) = (b"[component.web]\n", "realm-manifest");
    let line = write_public(&owner().public(), Format::OpenSsh, "").unwrap();
    fs::write(dir.path().join("allowed"), format!("me {line}\n")).unwrap();
    let ours = sshsig::sign(&owner(), namespace, content).unwrap();
    fs::write(dir.path().join("ours.sig"), &ours).unwrap();
    let verify = [
        "-Y", "verify", "-f", "allowed", "-I", "me", "-n", namespace, "-s", "ours.sig",
    ];
    run(dir.path(), "ssh-keygen", &verify, content);
    let elsewhere = [
        "-Y", "verify", "-f", "allowed", "-I", "me", "-n", "file", "-s", "ours.sig",
    ];
    assert!(!attempt(dir.path(), "ssh-keygen", &elsewhere, content).0);
    write_private(
        &dir.path().join("key"),
        &write_secret(&owner(), Format::OpenSsh, "").unwrap(),
    );
    for hash in ["sha512", "sha256"] {
        let option = format!("hashalg={hash}");
        let sign = ["-Y", "sign", "-f", "key", "-n", namespace, "-O", &option];
        let theirs = run(dir.path(), "ssh-keygen", &sign, content);
        sshsig::verify(&owner().public(), namespace, content, &theirs).unwrap();
    }
}
