//! Every RPC message in one line, for who asks: `RUST_LOG=realm=trace`. Names, numbers and sizes only;
//! what a message carries may be secret.

use capnp::traits::HasTypeId as _;
use capnp_rpc::rpc_capnp::{message, return_};

use crate::schema::{membrane_capnp as membrane, operator_capnp as operator};

/// Tells of one message of `bytes` bytes on the wire.
pub(crate) fn message(direction: &'static str, message: message::Reader<'_>, bytes: usize) {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    // A message that cannot be read is told of by whoever acts on it.
    if let Ok(what) = describe(message) {
        tracing::trace!(direction, bytes, "{what}");
    }
}

fn describe(message: message::Reader<'_>) -> capnp::Result<String> {
    Ok(match message.which() {
        Ok(message::Bootstrap(asked)) => format!("bootstrap #{}", asked?.get_question_id()),
        Ok(message::Call(call)) => {
            let call = call?;
            format!(
                "call #{} {}.{}",
                call.get_question_id(),
                interface(call.get_interface_id()),
                call.get_method_id()
            )
        }
        Ok(message::Return(answer)) => {
            let answer = answer?;
            let what = match answer.which() {
                Ok(return_::Exception(error)) => {
                    format!(" failed: {}", error?.get_reason()?.to_str()?)
                }
                _ => String::new(),
            };
            format!("return #{}{what}", answer.get_answer_id())
        }
        Ok(message::Finish(finish)) => format!("finish #{}", finish?.get_question_id()),
        Ok(message::Release(release)) => format!("release {}", release?.get_id()),
        Ok(message::Resolve(_)) => "resolve".to_owned(),
        Ok(message::Disembargo(_)) => "disembargo".to_owned(),
        Ok(message::Abort(reason)) => format!("abort: {}", reason?.get_reason()?.to_str()?),
        Ok(message::Unimplemented(_)) => "unimplemented".to_owned(),
        Ok(_) | Err(_) => "another message".to_owned(),
    })
}

/// The name that the schema gives an interface; its number where it is not one of ours.
fn interface(id: u64) -> String {
    let known = [
        (membrane::signer::Client::TYPE_ID, "signer"),
        (membrane::membrane::Client::TYPE_ID, "membrane"),
        (operator::log_sink::Client::TYPE_ID, "log_sink"),
        (operator::event_sink::Client::TYPE_ID, "event_sink"),
        (operator::survey_sink::Client::TYPE_ID, "survey_sink"),
        (operator::upload::Client::TYPE_ID, "upload"),
        (operator::operator::Client::TYPE_ID, "operator"),
    ];
    known
        .into_iter()
        .find(|(known, _)| *known == id)
        .map_or_else(|| format!("{id:#018x}"), |(_, name)| name.to_owned())
}
