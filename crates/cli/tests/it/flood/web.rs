//! What clients of the HTTP endpoint do who only want to be in the way.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::siege::Blows;

/// One of many clients: some stop within the header, some follow lines and read none of them, some ask
/// again and again.
pub async fn clients(blows: Arc<Blows>, number: usize) {
    let token = &blows.target.token;
    let request = match number % 4 {
        0 => "GET /hea".to_owned(),
        1 => format!("GET /logs?follow=1 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n"),
        2 => format!("GET /v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n"),
        _ => "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
    };
    loop {
        let Ok(mut stream) = TcpStream::connect(&blows.target.http).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        if stream.write_all(request.as_bytes()).await.is_err() {
            continue;
        }
        blows.count();
        if number % 4 == 3 {
            // It may be thrown out midway, which is all the same.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        } else {
            // Until the agent gives it up: what it says is not read.
            gone(&stream).await;
        }
    }
}

/// Returns when the other end has closed or reset, without reading what came before that.
async fn gone(stream: &TcpStream) {
    loop {
        let ready = stream.ready(tokio::io::Interest::ERROR).await;
        if ready.is_err() || stream.take_error().ok().flatten().is_some() {
            return;
        }
        let ready = stream.ready(tokio::io::Interest::READABLE).await;
        if ready.is_ok_and(|ready| ready.is_read_closed()) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
