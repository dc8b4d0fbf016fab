//! The sealing key of a node, its text, and what makes it the node's.

use realm_identity::{
    Message as _, SealingCertificate, SealingKey, SealingSecret, Signed, VerifyError,
    sealing::{self, CertificateError, ParseSealingKeyError},
};

use crate::scene::{NOW, key, node, sign};

/// Of age's own test kit: the secret is 32 times 0x42.
const KNOWN: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// Points of small order, and their second encodings that X25519 takes for the same.
const WEAK: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn secret() -> SealingSecret {
    SealingSecret::from_bytes(&[0x42; 32])
}

fn certificate() -> Signed<SealingCertificate> {
    let word = SealingCertificate::new(node().public(), secret().public(), NOW);
    sign(word, &node())
}

#[test]
fn a_key_is_written_as_age_writes_it() {
    assert_eq!(secret().public().to_string(), KNOWN);
    assert_eq!(KNOWN.parse::<SealingKey>().unwrap(), secret().public());
    let last = KNOWN.len() - 1;
    let wrong = [
        String::new(),
        KNOWN.to_uppercase(),
        KNOWN[..last].to_owned(),
        format!("{}q", &KNOWN[..last]),
        format!("{KNOWN} "),
        KNOWN.replacen("age", "agf", 1),
        node().public().to_string(),
    ];
    for wrong in wrong {
        let error = wrong.parse::<SealingKey>().unwrap_err();
        assert_eq!(error, ParseSealingKeyError::Format, "{wrong}");
    }
    assert_eq!(format!("{:?}", secret().public()), KNOWN);
    assert_eq!(format!("{:?}", secret()), format!("SealingSecret({KNOWN})"));
}

#[test]
fn a_key_that_keeps_no_secret_is_no_key() {
    for text in WEAK {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        let error = SealingKey::from_bytes(bytes).unwrap_err();
        assert_eq!(error, ParseSealingKeyError::Weak, "{text}");
        // Nor is it one in a certificate that a node signed.
        let mut word = certificate().into_inner().to_bytes();
        let at = word.len() - 32 - 9;
        assert_eq!(word[at..at + 32], *secret().public().as_bytes());
        word[at..at + 32].copy_from_slice(&bytes);
        assert!(SealingCertificate::from_bytes(&word).is_err(), "{text}");
    }
}

#[test]
fn a_certificate_is_the_nodes_own() {
    let signed = certificate();
    let wire = signed.to_wire();
    assert_eq!(
        SealingCertificate::verify(&wire, node().public()).unwrap(),
        signed
    );
    let text = sealing::to_text(&wire);
    let read = SealingCertificate::verify_text(&text, node().public()).unwrap();
    assert_eq!(read.key.to_string(), KNOWN);

    let other = SealingCertificate::verify(&wire, key(8).public()).unwrap_err();
    assert!(
        matches!(other, CertificateError::OtherNode { .. }),
        "{other}"
    );
    let later = SealingCertificate {
        v: 2,
        ..signed.into_inner()
    };
    let later = sign(later, &node()).to_wire();
    let later = SealingCertificate::verify(&later, node().public()).unwrap_err();
    assert!(matches!(later, CertificateError::Version(2)), "{later}");
    for text in ["", "not base64!", &"A".repeat(4096)] {
        assert!(SealingCertificate::verify_text(text, node().public()).is_err());
    }
}

#[test]
fn a_certificate_of_more_than_512_bytes_is_not_looked_at() {
    let wire = |size| SealingCertificate::verify(&vec![0; size], node().public()).unwrap_err();
    let text = |text: &str| SealingCertificate::verify_text(text, node().public()).unwrap_err();
    for read in [wire(512), text(&sealing::to_text(&[0; 512]))] {
        let malformed = matches!(read, CertificateError::Verify(VerifyError::Malformed(_)));
        assert!(malformed, "{read}");
    }
    // Base64 of 512 bytes and of 513 is equally long.
    for large in [wire(513), text(&"A".repeat(684))] {
        let CertificateError::Verify(VerifyError::TooLarge { size, max }) = large else {
            panic!("{large}");
        };
        assert_eq!((size, max), (513, 512));
    }
    let long = text(&"A".repeat(688));
    assert!(matches!(long, CertificateError::Format), "{long}");
}

#[test]
fn every_bit_of_a_certificate_counts() {
    let wire = certificate().to_wire();
    for at in 0..wire.len() {
        for bit in 0..8 {
            let mut forged = wire.clone();
            forged[at] ^= 1 << bit;
            let read = SealingCertificate::verify(&forged, node().public());
            assert!(read.is_err(), "byte {at}, bit {bit}");
        }
        assert!(SealingCertificate::verify(&wire[..at], node().public()).is_err());
    }
}
