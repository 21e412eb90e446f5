//! What pipelines say of themselves, and prompts.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::folder::{parsed, pipeline_of};
use super::stage_schedule::{PlanRequest, StageSchedule};
use super::{Fragment, PromptTokenizer, fragments};
use crate::diffusion::{FlowSchedule, Schedule, config, flow_plan};
use crate::fuzzing::{plans, text, unexpected};
use crate::model::{Scheduler, manifest_of_diffusers};

/// A `scheduler_config.json`, of a pipeline or of one network, and plans on its schedule.
pub(crate) fn scheduler(bytes: &[u8]) {
    let text = text(bytes);
    let _ = Scheduler::parse("model", text);
    if let Ok(schedule) = config::parse("model", text) {
        plans(&Schedule::Discrete(Box::new(schedule)));
    }
    if let Ok(Some(flow)) = FlowSchedule::parse("model", text) {
        let _ = flow_plan(&flow, 3, 64, true);
    }
    let Ok(schedule) = StageSchedule::parse("model", text) else { return };
    for (part, has_even_sigmas) in [(1.0, false), (0.8, true)] {
        let skipped = schedule.skipped(4, part);
        let (steps, sampler, eta, tokens) = (4, None, None, 64);
        let request = PlanRequest { steps, skipped, sampler, eta, tokens, has_even_sigmas, part };
        let _ = schedule.plan(request);
    }
    let _ = schedule.level(20);
}

/// Parts of pipelines, whose configuration is that of a denoiser or that of an autoencoder.
const DENOISERS: [&str; 14] = [
    "unet",
    "transformer",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "prior",
    "prior_prior",
    "prior_text_encoder",
    "prior_image_encoder",
    "decoder",
    "text_proj",
    "super_res_first",
    "super_res_last",
    "tokenizer",
];
const AUTOENCODERS: [&str; 7] = [
    "vae_decoder",
    "vae_encoder",
    "movq",
    "vqvae",
    "tokenizer_2",
    "tokenizer_3",
    "prior_tokenizer",
];

thread_local! {
    static FOLDER: Option<TempDir> = folder_of_links().ok();
    static TOKENIZER: Option<TempDir> = tempfile::tempdir().ok();
    static CLIP: Option<PromptTokenizer> = clip();
}

/// A folder with all parts, which share their configurations.
fn folder_of_links() -> std::io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let all = DENOISERS.map(|part| (part, "denoiser.json"));
    let all = all.into_iter().chain(AUTOENCODERS.map(|part| (part, "autoencoder.json")));
    for (part, config) in all {
        let part = folder.path().join(part);
        fs::create_dir(&part)?;
        fs::write(part.join("model.onnx"), [])?;
        std::os::unix::fs::symlink(format!("../{config}"), part.join("config.json"))?;
    }
    let scheduler = folder.path().join("scheduler");
    fs::create_dir(&scheduler)?;
    std::os::unix::fs::symlink("../scheduler.json", scheduler.join("scheduler_config.json"))?;
    Ok(folder)
}

/// The files of a pipeline with a zero byte between them: `model_index.json`, the configurations of
/// denoisers and of autoencoders, and that of the scheduler.
pub(crate) fn folder(bytes: &[u8]) {
    const FILES: [&str; 4] =
        ["model_index.json", "denoiser.json", "autoencoder.json", "scheduler.json"];
    FOLDER.with(|folder| {
        let Some(folder) = folder else { return };
        let mut parts = bytes.split(|byte| *byte == 0);
        for name in FILES {
            let part = parts.next().unwrap_or(b"{}");
            if fs::write(folder.path().join(name), part).is_err() {
                return;
            }
        }
        if let Ok(spec) = pipeline_of(&folder.path().into()) {
            let _ = (spec.decoder_scale(), spec.upscale_factor(), spec.to_toml());
        }
        let _ = manifest_of_diffusers(folder.path());
    });
}

/// A `pipeline.toml`. What is read is written, and read again as the same.
pub(crate) fn pipeline(bytes: &[u8]) {
    let Ok(spec) = parsed(text(bytes), "model") else { return };
    let written = spec.to_toml().unwrap_or_else(unexpected);
    let again = parsed(&written, "model").unwrap_or_else(unexpected);
    assert_eq!(again.to_toml().ok(), Some(written));
}

/// The files of a tokenizer: after an `s`, a `spiece.model`; after a `c`, `vocab.json`, `merges.txt`
/// and `tokenizer_config.json` with a zero byte between them; else, a `tokenizer.json`.
pub(crate) fn tokenizer(bytes: &[u8]) {
    const NAMES: [&str; 5] =
        ["tokenizer.json", "spiece.model", "vocab.json", "merges.txt", "tokenizer_config.json"];
    TOKENIZER.with(|folder| {
        let Some(folder) = folder else { return };
        NAMES.iter().for_each(|name| drop(fs::remove_file(folder.path().join(name))));
        let write = |name, bytes: &[u8]| drop(fs::write(folder.path().join(name), bytes));
        match bytes {
            [b's', model @ ..] => write(NAMES[1], model),
            [b'c', files @ ..] => {
                let parts = files.splitn(3, |byte| *byte == 0);
                parts.zip(&NAMES[2..]).for_each(|(part, name)| write(name, part));
            }
            json => write(NAMES[0], json),
        }
        let Ok(tokenizer) = PromptTokenizer::open(&folder.path().into(), "", None) else { return };
        let prompt = "a (red:1.2) cat, d\u{e9}j\u{e0} vu  </s><pad>\u{1f408}\u{fb01}\u{2581}1";
        check_tokens(&tokenizer, &fragments(prompt));
    });
}

fn check_tokens(tokenizer: &PromptTokenizer, prompt: &[Fragment]) {
    let _ = tokenizer.vocabulary();
    if let Ok(tokens) = tokenizer.tokens(prompt) {
        let lengths = [tokens.ids.len(), tokens.mask.len(), tokens.weights.len()];
        assert_eq!(lengths, [tokenizer.length(); 3]);
    }
    let _ = tokenizer.tokens_after("say: ", prompt);
}

/// The tokenizer of the test pipeline for Stable Diffusion 1.5.
fn clip() -> Option<PromptTokenizer> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pipelines/text/folders/sd15");
    PromptTokenizer::open(&folder.as_path().into(), "tokenizer", None).ok()
}

/// A prompt.
pub(crate) fn prompt(bytes: &[u8]) {
    let prompt = text(bytes);
    let parts = fragments(prompt);
    assert!(parts.iter().all(|part| part.weight.is_finite()));
    assert!(parts.iter().map(|part| part.text.len()).sum::<usize>() <= prompt.len());
    CLIP.with(|tokenizer| {
        let tokenizer = tokenizer.as_ref();
        check_tokens(tokenizer.unwrap_or_else(|| unexpected("no tokenizer")), &parts);
    });
}
