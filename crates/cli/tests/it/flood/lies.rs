//! What a member of the realm says that is asked for parts of programs.

use std::{sync::Arc, time::Duration};

use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::Stream;
use tokio::{task::JoinSet, time::sleep};

use super::{
    foe::{BLOB, Refused, write},
    siege::Blows,
};

/// Digest, offset and length.
const REQUEST: usize = 44;
/// More than any range, and less than what is refused at once.
const ANSWER: u32 = 1024 * 1024;
const SLOW: Duration = Duration::from_secs(1);

/// Answers every question: with wrong bytes, without end, a byte in a second, or not at all.
pub async fn about_programs(blows: Arc<Blows>) {
    loop {
        let Ok(mut foe) = blows.member(2).await else {
            continue;
        };
        let mut asked = foe.asked(BLOB);
        // They end with the connection.
        let mut answers = JoinSet::new();
        for round in 0.. {
            tokio::select! {
                stream = asked.next() => {
                    let Some((_, stream)) = stream else { break };
                    blows.count();
                    answers.spawn(answer(stream, round));
                }
                () = foe.ended() => break,
            }
            while answers.try_join_next().is_some() {}
        }
    }
}

async fn answer(mut stream: Stream, round: usize) -> Result<(), Refused> {
    let mut request = [0; REQUEST];
    stream.read_exact(&mut request).await.map_err(|_| Refused)?;
    let announce = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
    let lie = vec![round as u8; 64 * 1024];
    match round % 5 {
        0 => {
            write(&mut stream, &announce(ANSWER)).await?;
            for _ in 0..16 {
                write(&mut stream, &lie).await?;
            }
        }
        1 => {
            write(&mut stream, &announce(ANSWER)).await?;
            loop {
                write(&mut stream, &lie).await?;
            }
        }
        2 => {
            write(&mut stream, &announce(u32::MAX)).await?;
            loop {
                write(&mut stream, &lie).await?;
            }
        }
        3 => {
            write(&mut stream, &announce(ANSWER)).await?;
            loop {
                write(&mut stream, &[7]).await?;
                sleep(SLOW).await;
            }
        }
        _ => std::future::pending::<()>().await,
    }
    Ok(())
}
