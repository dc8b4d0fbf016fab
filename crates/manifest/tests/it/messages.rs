//! Every byte and every field of everything that is signed is inside the signature.

use std::fmt::Debug;

use realm_identity::{Claim, Consent, Kind, Message, Signed};
use realm_manifest::report::{CellReport, MAX_CELLS, MAX_REPORT_BYTES, NodeReport};

use crate::{
    cbor,
    scene::{challenge, entry, genesis, invite, node, report, sealing, status, witnessed},
};

/// Domains that [`every_message`] goes through; the inventory in `coverage` compares it with the sources.
pub const COVERED: [&str; 10] = [
    "genesis",
    "entry",
    "invite",
    "consent",
    "claim",
    "witness",
    "graft",
    "sealing",
    "node-report",
    "status",
];

#[test]
fn every_message() {
    let mut seen = vec![
        check(&genesis()),
        check(&invite()),
        check(&consent()),
        check(&witnessed().claim),
        check(&witnessed().witness),
        check(&challenge()),
        check(&sealing()),
        check(&report()),
        check(&status()),
    ];
    seen.extend(Kind::ALL.map(|kind| check(&entry(kind))));
    seen.sort_unstable();
    seen.dedup();
    let mut covered = COVERED;
    covered.sort_unstable();
    assert_eq!(seen, covered);
}

fn consent() -> Signed<Consent> {
    let claim: &Claim = &witnessed().claim;
    Signed::from_wire(&claim.consent).unwrap()
}

fn check<T: Message + Debug + PartialEq>(signed: &Signed<T>) -> &'static str {
    let wire = signed.to_wire();
    let read = Signed::<T>::from_wire(&wire).unwrap();
    assert_eq!(
        **signed, *read,
        "a field outside the bytes would have been lost"
    );
    every_byte::<T>(&wire);
    every_field(signed);
    T::DOMAIN
}

/// Each byte changed in three ways, and the wire cut there.
fn every_byte<T: Message>(wire: &[u8]) {
    for at in 0..wire.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut forged = wire.to_vec();
            forged[at] ^= mask;
            assert!(
                Signed::<T>::from_wire(&forged).is_err(),
                "{} byte {at} ^ {mask}",
                T::DOMAIN
            );
        }
        assert!(
            Signed::<T>::from_wire(&wire[..at]).is_err(),
            "{} cut at {at}",
            T::DOMAIN
        );
    }
}

/// Each field changed, written canonically, under the old signature: what is decoded differs, and is refused.
fn every_field<T: Message + Debug + PartialEq>(signed: &Signed<T>) {
    let tree = cbor::read(signed.signed_bytes());
    assert_eq!(
        cbor::write(&tree),
        signed.signed_bytes(),
        "the reader here knows all of it"
    );
    let wire = signed.to_wire();
    let signature = &wire[wire.len() - 64..];
    let mut decoded = 0;
    for changed in cbor::changes(&tree) {
        let bytes = cbor::write(&changed);
        assert_ne!(bytes, signed.signed_bytes());
        if let Ok(value) = T::from_bytes(&bytes) {
            assert_ne!(value, **signed, "{}: two encodings of one value", T::DOMAIN);
            decoded += 1;
        }
        let mut forged = minicbor::Encoder::new(Vec::new());
        forged
            .array(2)
            .unwrap()
            .bytes(&bytes)
            .unwrap()
            .bytes(signature)
            .unwrap();
        let refused = Signed::<T>::from_wire(&forged.into_writer()).is_err();
        assert!(refused, "{}: {changed:?}", T::DOMAIN);
    }
    assert!(
        decoded > 2,
        "{}: most changes must reach the signature check",
        T::DOMAIN
    );
}

#[test]
fn a_status_digest_fits_gossip() {
    let size = status().to_wire().len();
    assert!(size <= 1024, "{size} bytes");
}

#[test]
fn a_report_may_name_every_cell_and_has_a_bound() {
    let sized = |count: usize| {
        let mut all = (*report()).clone();
        let calm = CellReport {
            reason: None,
            fuel_used: None,
            exit_code: None,
            retry: None,
            ..all.cells[0].clone()
        };
        all.cells = vec![calm; count];
        Signed::sign(all, &node()).unwrap().to_wire()
    };
    let full = sized(MAX_CELLS as usize);
    assert!(full.len() > realm_identity::MAX_SIGNED_BYTES);
    let read = Signed::<NodeReport>::from_wire(&full).unwrap();
    assert_eq!(read.cells.len(), MAX_CELLS as usize);
    let beyond = sized(MAX_REPORT_BYTES / 50);
    let refused = Signed::<NodeReport>::from_wire(&beyond).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "{} bytes, at most {MAX_REPORT_BYTES} are allowed",
            beyond.len()
        )
    );
}

#[test]
fn a_report_without_problems_says_nothing_of_them() {
    let mut well = (*report()).clone();
    well.problems.clear();
    let signed = Signed::sign(well.clone(), &node()).unwrap();
    let read = Signed::<NodeReport>::from_wire(&signed.to_wire()).unwrap();
    assert_eq!(*read, well);
    // Its map ends with the field before, so that who does not know this one reads it.
    let shorter = report().to_wire().len() - signed.to_wire().len();
    assert!(shorter > 0);
    assert_eq!(
        minicbor::Decoder::new(&realm_identity::canonical::encode(&well))
            .map()
            .unwrap(),
        Some(19)
    );
}
