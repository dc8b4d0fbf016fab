//! Artifacts on their way in, over RPC.

use std::sync::Arc;

use realm_identity::Artifact;
use realm_rpc::{ErrorCode, RpcError, Upload};
use realm_store::Blobs;

use super::{Answer, blocking, store};

/// Largest artifact that is taken over RPC.
const MAX_UPLOAD: u64 = 512 * 1024 * 1024;

pub(super) async fn begin(
    blobs: Arc<Blobs>,
    artifact: Artifact,
) -> Result<Box<dyn Upload>, RpcError> {
    if artifact.size > MAX_UPLOAD {
        let message = format!(
            "the artifact has {} bytes, at most {MAX_UPLOAD} are taken",
            artifact.size
        );
        return Err(RpcError::new(ErrorCode::Limit, message));
    }
    let upload = blocking(move || blobs.upload(artifact).map_err(store)).await?;
    let received = upload
        .as_ref()
        .map_or(artifact.size, realm_store::Upload::received);
    let state = upload.map_or(State::Here, State::Open);
    Ok(Box::new(Receiving { received, state }))
}

/// An upload under way.
#[derive(Debug)]
struct Receiving {
    received: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The whole artifact.
    Here,
    Open(realm_store::Upload),
    /// It failed, or what it was asked last was broken off: whoever sends begins anew.
    Ended,
}

fn ended() -> RpcError {
    RpcError::new(ErrorCode::Failed, "the upload has ended").help("push it again")
}

impl Upload for Receiving {
    fn received(&self) -> u64 {
        self.received
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Answer<'_, u64> {
        Box::pin(async move {
            let mut upload = match std::mem::replace(&mut self.state, State::Ended) {
                State::Open(upload) => upload,
                State::Here => {
                    self.state = State::Here;
                    return Ok(self.received);
                }
                State::Ended => return Err(ended()),
            };
            let (upload, received) = blocking(move || {
                let received = upload.write(offset, &bytes).map_err(store)?;
                Ok((upload, received))
            })
            .await?;
            self.state = State::Open(upload);
            self.received = received;
            Ok(received)
        })
    }

    fn finish(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Open(upload) => blocking(move || upload.finish().map_err(store)).await?,
                State::Here => {}
                State::Ended => return Err(ended()),
            }
            self.state = State::Here;
            Ok(())
        })
    }
}
