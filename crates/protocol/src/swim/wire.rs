//! The bytes of membership packets.

use bytes::{Buf, BufMut};
use foca::{Header, Message, State};

use super::life::Id;

/// The bytes of foca's packets: fixed widths, so that a packet can be read and filtered here first.
pub(super) struct Wire;

#[derive(Debug, thiserror::Error)]
#[error("malformed membership packet")]
pub(super) struct WireError;

impl foca::Codec<Id> for Wire {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &Header<Id>,
        mut buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut bytes = Vec::with_capacity(160);
        put_header(header, &mut bytes);
        put(&bytes, &mut buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Id>, WireError> {
        take_header(&mut buf).ok_or(WireError)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Id>,
        mut buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut bytes = Vec::with_capacity(48);
        put_member(member, &mut bytes);
        put(&bytes, &mut buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<foca::Member<Id>, WireError> {
        take_member(&mut buf).ok_or(WireError)
    }
}

fn put(bytes: &[u8], buf: &mut impl BufMut) -> Result<(), WireError> {
    // foca tries to fit as much as it can and takes an error as "full".
    if buf.remaining_mut() < bytes.len() {
        return Err(WireError);
    }
    buf.put_slice(bytes);
    Ok(())
}

pub(super) fn read_packet(mut packet: &[u8]) -> Option<(Header<Id>, Vec<foca::Member<Id>>)> {
    let header = take_header(&mut packet)?;
    let count = if packet.is_empty() {
        0
    } else {
        packet.try_get_u16().ok()?
    };
    let members = (0..count)
        .map(|_| take_member(&mut packet))
        .collect::<Option<Vec<_>>>()?;
    packet.is_empty().then_some((header, members))
}

pub(super) fn is_turn_undead(mut packet: &[u8]) -> bool {
    take_header(&mut packet).is_some_and(|header| header.message == Message::TurnUndead)
}

pub(super) fn write_packet(header: &Header<Id>, members: Vec<foca::Member<Id>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_header(header, &mut bytes);
    if !members.is_empty() {
        bytes.put_u16(members.len() as u16);
    }
    members
        .iter()
        .for_each(|member| put_member(member, &mut bytes));
    bytes
}

/// The packet of a node that cannot judge others: the suspicion of whom it is sent to stays in, for
/// that one to refute.
pub(super) fn without_verdicts(packet: &[u8]) -> Vec<u8> {
    let Some((header, mut members)) = read_packet(packet) else {
        // foca made it with the codec above.
        return packet.to_vec();
    };
    let dst = header.dst;
    members.retain(|member| member.state() == State::Alive || member.id().key == dst.key);
    write_packet(&header, members)
}

fn put_id(id: &Id, bytes: &mut Vec<u8>) {
    bytes.put_slice(&id.key);
    bytes.put_u64(id.epoch);
    bytes.put_u32(id.bump);
}

fn take_id(buf: &mut impl Buf) -> Option<Id> {
    let mut key = [0; 32];
    buf.try_copy_to_slice(&mut key).ok()?;
    Some(Id {
        key,
        epoch: buf.try_get_u64().ok()?,
        bump: buf.try_get_u32().ok()?,
    })
}

fn put_member(member: &foca::Member<Id>, bytes: &mut Vec<u8>) {
    put_id(member.id(), bytes);
    bytes.put_u16(member.incarnation());
    bytes.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

fn take_member(buf: &mut impl Buf) -> Option<foca::Member<Id>> {
    let (id, incarnation) = (take_id(buf)?, buf.try_get_u16().ok()?);
    let state = match buf.try_get_u8().ok()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return None,
    };
    Some(foca::Member::new(id, incarnation, state))
}

fn put_header(header: &Header<Id>, bytes: &mut Vec<u8>) {
    put_id(&header.src, bytes);
    bytes.put_u16(header.src_incarnation);
    put_id(&header.dst, bytes);
    let (tag, probe, id) = match &header.message {
        Message::Ping(probe) => (1, Some(*probe), None),
        Message::Ack(probe) => (2, Some(*probe), None),
        Message::PingReq {
            target,
            probe_number,
        } => (3, Some(*probe_number), Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (4, Some(*probe_number), Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (5, Some(*probe_number), Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (6, Some(*probe_number), Some(origin)),
        Message::Announce => (7, None, None),
        Message::Feed => (8, None, None),
        Message::Gossip => (9, None, None),
        Message::Broadcast => (10, None, None),
        Message::TurnUndead => (11, None, None),
    };
    bytes.put_u8(tag);
    bytes.extend(probe);
    if let Some(id) = id {
        put_id(id, bytes);
    }
}

fn take_header(buf: &mut impl Buf) -> Option<Header<Id>> {
    let (src, src_incarnation) = (take_id(buf)?, buf.try_get_u16().ok()?);
    let dst = take_id(buf)?;
    let tag = buf.try_get_u8().ok()?;
    let probe_number = if (1..=6).contains(&tag) {
        buf.try_get_u8().ok()?
    } else {
        0
    };
    let message = match tag {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq {
            target: take_id(buf)?,
            probe_number,
        },
        4 => Message::IndirectPing {
            origin: take_id(buf)?,
            probe_number,
        },
        5 => Message::IndirectAck {
            target: take_id(buf)?,
            probe_number,
        },
        6 => Message::ForwardedAck {
            origin: take_id(buf)?,
            probe_number,
        },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        _ => return None,
    };
    Some(Header {
        src,
        src_incarnation,
        dst,
        message,
    })
}
