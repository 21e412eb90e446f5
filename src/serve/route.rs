//! What the paths of requests name.

use super::query::decoded;

/// The name of a model in a path, and its version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) version: Option<String>,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    Metrics,
    Live,
    Ready,
    Server,
    Index,
    Model(Name),
    ModelReady(Name),
    Infer(Name),
    Models,
    Denoise,
    Upscale,
    Generate,
}

/// What there is, for people.
pub(super) const ENDPOINTS: &[&str] = &[
    "/v1/denoise",
    "/v1/upscale",
    "/v1/images/generations",
    "/v1/models",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/repository/index",
    "/v2/models/NAME",
    "/v2/models/NAME/ready",
    "/v2/models/NAME/infer",
    "/metrics",
];

pub(super) const KNOWN: &str = "there is nothing at this address; GET / lists what there is";

/// What a path names, if anything.
pub(super) fn find(path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let route = match parts.as_slice() {
        [""] => Route::Root,
        ["metrics"] => Route::Metrics,
        ["v1", "denoise"] => Route::Denoise,
        ["v1", "upscale"] => Route::Upscale,
        ["v1", "images", "generations"] => Route::Generate,
        ["v1", "models"] => Route::Models,
        ["v2"] | ["v2", ""] => Route::Server,
        ["v2", "health", "live"] => Route::Live,
        ["v2", "health", "ready"] => Route::Ready,
        ["v2", "repository", "index"] => Route::Index,
        ["v2", "models", name, rest @ ..] => {
            let (version, rest) = match rest {
                ["versions", version, rest @ ..] => (Some(decoded(version).ok()?), rest),
                rest => (None, rest),
            };
            let name = Name { name: decoded(name).ok()?, version };
            match rest {
                [] => Route::Model(name),
                ["ready"] => Route::ModelReady(name),
                ["infer"] => Route::Infer(name),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(route)
}

impl Route {
    /// A name for metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Metrics => "metrics",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Server => "server",
            Self::Index => "index",
            Self::Model(_) => "model",
            Self::ModelReady(_) => "model_ready",
            Self::Infer(_) => "infer",
            Self::Models => "models",
            Self::Denoise => "denoise",
            Self::Upscale => "upscale",
            Self::Generate => "generate",
        }
    }

    /// The methods that it takes.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Denoise | Self::Upscale => "POST, PUT",
            Self::Infer(_) | Self::Generate | Self::Index => "POST",
            _ => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, Route, find};

    #[test]
    fn finds_models_and_versions() {
        let name = |version: Option<&str>| Name {
            name: "a b".into(),
            version: version.map(str::to_owned),
        };
        assert_eq!(find("/v2/models/a%20b"), Some(Route::Model(name(None))));
        assert_eq!(find("/v2/models/a%20b/versions/1/infer"), Some(Route::Infer(name(Some("1")))));
        assert_eq!(find("/v2/models/a%20b/ready"), Some(Route::ModelReady(name(None))));
        for path in
            ["", "*", "//", "/v2/models", "/v2/models/a/versions", "/v2/models/%ff", "/v1", "/V2"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
