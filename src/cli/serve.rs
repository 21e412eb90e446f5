//! `eddy serve`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eddy::machine::exit_at_once;
use eddy::media::still::Limits;
use eddy::model::{ModelFolder, Package};
use eddy::serve::{
    Listen, Loader, Log, ModelFiles, Record, ServeOptions, ServedModel, Server, Token,
};
use eddy::stages::{Retention, TextToImageOptions, is_pipeline};

use super::console::{Console, plain, plain_line};
use super::interrupt;
use super::onnx_options::OnnxOptions;
use super::options::{ByteSize, Opened};
use super::run_args::RunArgs;

/// Serve models over HTTP
///
/// Models are loaded once. Images are denoised by `curl -T photo.jpg ADDRESS/v1/denoise`, enlarged
/// by /v1/upscale; /v1/images/generations makes images of a text, /v2 is the Open Inference
/// Protocol (KServe), /metrics is for Prometheus.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  eddy serve\n  \
                  EDDY_TOKEN=some-long-token eddy serve -l 0.0.0.0 -m denoise -m upscale-x4\n  \
                  curl -T photo.jpg -o clean.jpg http://127.0.0.1:8071/v1/denoise")]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package or in the diffusers layout, or an .onnx file,
    /// optionally with its name in requests; once for each model
    #[arg(
        short,
        long = "model",
        value_name = "[NAME=]MODEL",
        default_values = ["denoise-fast", "camera", "upscale-x2"],
        help_heading = "Model"
    )]
    models: Vec<String>,

    #[command(flatten)]
    server: ServerOptions,

    #[command(flatten)]
    run: RunArgs,
}

/// How clients are served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct ServerOptions {
    /// An address, a port or both, unix:PATH for a Unix socket, or systemd for the sockets that it
    /// passes; once for each. Default: 127.0.0.1:8071, or the sockets of systemd where it passes
    /// some. Addresses of other machines need a token
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<Listen>,

    /// The token that clients have to send; others on this machine can see it in the list of
    /// processes, unlike that of --token-file [env: EDDY_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,

    /// A file with the token, or a pipe
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// How many requests may wait for each model; further ones are refused (429)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    queue: u16,

    /// Maximum size of the body of a request (413)
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    max_body: ByteSize,

    /// Maximum size of the samples of an image (422), such as 3 bytes for each pixel
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    max_image: ByteSize,

    /// How long a request may wait (503) and run (504); 0 is without limit
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    request_timeout: Duration,

    /// How long requests may go on after SIGTERM or SIGINT
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    grace: Duration,

    /// The log of requests on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "plain")]
    log: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people
    Plain,
    /// A JSON object a line
    Json,
    /// None
    Off,
}

/// Records that wait to be written; further ones are lost.
const LOG: usize = 1024;

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("expected seconds, from 0 to 1000000")
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let token = self.server.token()?;
        let (run, console) = (&self.run, self.run.console);
        let mut opened = run.open()?;
        // A server has pauses between requests, in which threads can sleep.
        opened.sleep_when_idle = true;
        let models = self.models.iter().map(|model| self.model(model, &opened));
        let models = models.collect::<eddy::Result<Vec<_>>>()?;
        let limits = run.memory.limits();
        let loader = Loader {
            runtime: opened.runtime.clone(),
            session: opened.session(),
            device: opened.device().to_string(),
            tile: run.memory.tile(),
            budget: run.memory.budget(),
            limits: Limits { max_bytes: self.server.max_image.0.min(limits.max_bytes), ..limits },
            wording: plain,
        };
        let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
        let loading = opened.guard_loading(&names.join(", "));
        let options = ServeOptions {
            listen: self.server.listen.clone(),
            token,
            queue: self.server.queue.into(),
            max_body: self.server.max_body.0,
            request_timeout: Some(self.server.request_timeout).filter(|limit| !limit.is_zero()),
            grace: self.server.grace,
            log: self.server.log(console),
            ready: Box::new(move || {
                drop(loading);
                console.note(format!("ready: {}", names.join(", ")));
            }),
        };
        let server = Server::bind(models, loader, options)?;
        for url in server.urls() {
            console.note(format!("listens at {url}"));
        }
        let (stopper, grace) = (server.stopper(), self.server.grace.as_secs_f64());
        interrupt::on_stop(move || {
            console.note(format!("stopping: requests may go on for {grace} s (again to stop now)"));
            stopper.stop();
        });
        let ended = server.run()?;
        if ended.cut_off > 0 {
            let requests = match ended.cut_off {
                1 => "1 request was".to_owned(),
                count => format!("{count} requests were"),
            };
            console.note(format!("stopped; {requests} cut off"));
        }
        if !ended.is_clean {
            exit_at_once(0);
        }
        Ok(())
    }

    /// A model of the command line: `MODEL`, or `NAME=MODEL`.
    fn model(&self, text: &str, opened: &Opened) -> eddy::Result<ServedModel> {
        let (name, model) = match text.split_once('=') {
            Some((name, model)) if !name.is_empty() && !Path::new(text).exists() => {
                (Some(name.to_owned()), model)
            }
            _ => (None, text),
        };
        let path = Path::new(model);
        let folder = ModelFolder::find(model);
        if is_pipeline(&folder) {
            let options = TextToImageOptions {
                session: opened.session(),
                precision: self.run.precision.requested().unwrap_or_default(),
                tile: self.run.memory.tile(),
                max_memory: self.run.memory.requested(),
                retention: Retention::All,
            };
            let files = ModelFiles::Pipeline { folder, options };
            let name = name.or_else(|| stem(path)).unwrap_or_else(|| model.to_owned());
            return Ok(ServedModel { name, files });
        }
        let package = self.package(model, opened)?;
        let precision = self.run.precision.on(opened.device(), &package);
        let own = package.manifest.name.clone();
        let name = name.unwrap_or_else(|| {
            // The manifest of a bare file has its whole path as its name.
            stem(path).filter(|_| path.is_file() || own.contains('/')).unwrap_or(own)
        });
        Ok(ServedModel {
            name,
            files: ModelFiles::Package { package: Box::new(package), precision },
        })
    }

    fn package(&self, model: &str, opened: &Opened) -> eddy::Result<Package> {
        let (package, detected) = OnnxOptions::default().open(model, opened)?;
        for guess in detected.iter().filter(|property| property.is_guess) {
            self.run.console.note(format!("warning: {model}: {}: {}", guess.key, guess.text));
        }
        Ok(package)
    }
}

/// The name of a folder, or of a file without its extension.
fn stem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    Some(path.file_stem()?.to_string_lossy().into_owned())
}

/// The largest file of a token, in bytes.
const MAX_TOKEN_FILE: u64 = 4096;

/// The text in the file of a token, which may be a pipe.
fn read_token(path: &Path) -> eddy::Result<String> {
    let mut bytes = Vec::new();
    // Of devices and pipes without end, no more is read than what shows that they are too long.
    let read =
        File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|cause| eddy::Error::input_from(path, "the token cannot be read", cause))?;
    if bytes.len() as u64 > MAX_TOKEN_FILE {
        let problem = format!("more than {MAX_TOKEN_FILE} bytes; expected the token and no more");
        return Err(eddy::Error::input(path, problem));
    }
    let text = String::from_utf8(bytes)
        .map_err(|cause| eddy::Error::input_from(path, "the token is no text", cause))?;
    Ok(text.trim().to_owned())
}

impl ServerOptions {
    /// The token of an option, a file, or the environment.
    fn token(&self) -> eddy::Result<Option<Token>> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => std::env::var("EDDY_TOKEN").ok(),
        };
        text.map(Token::chosen).transpose()
    }

    /// Writes records on a thread of its own, so that a reader that stops reading stops no request.
    fn log(&self, console: Console) -> Option<Log> {
        let format = self.log;
        if format == LogFormat::Off || console.is_quiet() {
            return None;
        }
        let (sender, records) = sync_channel::<Record>(LOG);
        let body = move || {
            for record in records {
                let line = match format {
                    LogFormat::Json => record.to_json().to_string(),
                    _ => plain_line(&record.to_text()),
                };
                // A closed stderr stops no server.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        };
        // Without this thread there is no log.
        let _ = std::thread::Builder::new().name("log".into()).spawn(body);
        Some(Box::new(move |record| drop(sender.try_send(record.clone()))))
    }
}
