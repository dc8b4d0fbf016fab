//! A WASI 0.3 command: its `run` is asynchronous and writes one line through a stream.

wasip3::cli::command::export!(Hello);

struct Hello;

impl wasip3::exports::cli::run::Guest for Hello {
    async fn run() -> Result<(), ()> {
        let (mut writer, reader) = wasip3::wit_stream::new();
        let printing = async { wasip3::cli::stdout::write_via_stream(reader).await };
        let feeding = async {
            let unsent = writer.write_all(b"hello from 0.3\n".to_vec()).await;
            drop(writer);
            unsent.is_empty()
        };
        let (printed, fed) = futures::join!(printing, feeding);
        if printed.is_ok() && fed {
            Ok(())
        } else {
            Err(())
        }
    }
}
