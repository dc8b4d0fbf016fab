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
    Ok(Box::new(Receiving { received, upload }))
}

/// An upload under way.
#[derive(Debug)]
struct Receiving {
    received: u64,
    /// None once the artifact is here, and after a failure: what was received waits on disk.
    upload: Option<realm_store::Upload>,
}

impl Upload for Receiving {
    fn received(&self) -> u64 {
        self.received
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Answer<'_, u64> {
        Box::pin(async move {
            let Some(mut upload) = self.upload.take() else {
                return Ok(self.received);
            };
            let (upload, received) = blocking(move || {
                let received = upload.write(offset, &bytes).map_err(store)?;
                Ok((upload, received))
            })
            .await?;
            self.upload = Some(upload);
            self.received = received;
            Ok(received)
        })
    }

    fn finish(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.upload.take() {
                Some(upload) => blocking(move || upload.finish().map_err(store)).await,
                None => Ok(()),
            }
        })
    }
}
