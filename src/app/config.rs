//! `config.yaml` of an app (compat §1.1): each top-level key is a plugin. Called by `app::App::load`.

use super::source::Glob;
use crate::diagnostic::{Diagnostics, Place, suggestion};
use crate::yaml::{self, Entry, Node, Value};

/// What `config.yaml` asks for.
#[derive(Debug)]
pub struct Config<'a> {
    pub rest: bool,
    /// `rest.webSocket`
    pub web_socket: bool,
    pub schema: Vec<Glob<'a>>,
    pub resources: Vec<Glob<'a>>,
    pub static_files: StaticSection<'a>,
    pub web_socket_echo: Option<EchoPath<'a>>,
}

/// `webSocketEcho`: where a WebSocket sends back what it is sent, for conformance suites of WebSocket implementations.
#[derive(Debug)]
pub struct EchoPath<'a> {
    /// With its leading slash.
    pub path: String,
    pub place: Place<'a>,
}

#[derive(Debug, Default)]
pub struct StaticSection<'a> {
    pub files: Vec<Glob<'a>>,
    /// Without leading or trailing slash.
    pub url_path: String,
    /// Whether a folder answers with its `index.html`.
    pub index: bool,
}

const PLUGINS: &[&str] = &[
    "rest",
    "graphqlSchema",
    "jsResource",
    "static",
    "webSocketEcho",
    "roles",
    "loadEnv",
    "dataLoader",
    "fastifyRoutes",
];

impl<'a> Config<'a> {
    /// Harper's default for a folder without `config.yaml`.
    pub fn without_file(file: &'a str) -> Config<'a> {
        let schema = Glob::parse("*.graphql", Place::whole(file)).into_iter().collect();
        Config { rest: true, schema, ..Config::empty() }
    }

    fn empty() -> Config<'a> {
        Config {
            rest: false,
            web_socket: true,
            schema: Vec::new(),
            resources: Vec::new(),
            static_files: StaticSection::default(),
            web_socket_echo: None,
        }
    }

    pub fn parse(file: &'a str, text: &str, diagnostics: &mut Diagnostics) -> Config<'a> {
        let mut config = Config::empty();
        let Some(root) = yaml::parse(file, text, diagnostics) else { return config };
        let Some(entries) = root.map() else {
            if !root.is_null() {
                diagnostics.error(root.place, format!("found {} (expected a map of plugins)", root.describe()));
            }
            return config;
        };
        for entry in entries {
            match entry.key.as_str() {
                "rest" => rest(&entry.value, &mut config, diagnostics),
                "graphqlSchema" => config.schema = files_only(entry, diagnostics),
                "jsResource" => config.resources = files_only(entry, diagnostics),
                "static" => config.static_files = static_section(entry, diagnostics),
                "webSocketEcho" => match entry.value.text() {
                    Some(path) if path.starts_with('/') => {
                        config.web_socket_echo = Some(EchoPath { path: path.to_owned(), place: entry.value.place });
                    }
                    _ => wrong(entry, "a path such as /echo", diagnostics),
                },
                key @ ("roles" | "loadEnv" | "dataLoader" | "fastifyRoutes") => {
                    diagnostics.warning(entry.key_place, format!("{key} is not supported yet, ignored"));
                }
                key if is_package(&entry.value) => {
                    diagnostics.warning(entry.key_place, format!("plugin package {key} is not supported, ignored"));
                }
                key => {
                    let hint = suggestion(key, PLUGINS.iter().copied());
                    diagnostics.error(entry.key_place, format!("unknown key {key}{hint}"));
                }
            }
        }
        config
    }
}

fn is_package(value: &Node<'_>) -> bool {
    value.map().is_some_and(|entries| entries.iter().any(|entry| entry.key == "package"))
}

fn rest(node: &Node<'_>, config: &mut Config<'_>, diagnostics: &mut Diagnostics) {
    if let Some(on) = node.boolean() {
        config.rest = on;
        return;
    }
    let Some(entries) = node.map() else {
        let found = node.describe();
        diagnostics.error(node.place, format!("rest: found {found} (expected true, false or a map of options)"));
        return;
    };
    config.rest = true;
    for entry in entries {
        match entry.key.as_str() {
            "webSocket" => config.web_socket = boolean(entry, true, diagnostics),
            "lastModified" => not_supported(entry, "rest", diagnostics),
            _ => unknown_option(entry, "rest", &["lastModified", "webSocket"], diagnostics),
        }
    }
}

/// `graphqlSchema` and `jsResource`.
fn files_only<'a>(section: &Entry<'a>, diagnostics: &mut Diagnostics) -> Vec<Glob<'a>> {
    let mut files = Vec::new();
    for entry in options(section, diagnostics) {
        match entry.key.as_str() {
            "files" => files = globs(entry, diagnostics),
            "path" | "root" | "urlPath" => not_supported(entry, &section.key, diagnostics),
            _ => unknown_option(entry, &section.key, &["files"], diagnostics),
        }
    }
    files
}

fn static_section<'a>(section: &Entry<'a>, diagnostics: &mut Diagnostics) -> StaticSection<'a> {
    let mut result = StaticSection { files: Vec::new(), url_path: String::new(), index: true };
    for entry in options(section, diagnostics) {
        match entry.key.as_str() {
            "files" => result.files = globs(entry, diagnostics),
            "urlPath" => match entry.value.text() {
                Some(text) if !text.split('/').any(|segment| segment == ".." || segment == ".") => {
                    result.url_path = text.trim_matches('/').to_owned();
                }
                _ => wrong(entry, "a path such as /static", diagnostics),
            },
            "index" => result.index = boolean(entry, true, diagnostics),
            // true is how tablecast behaves: what is not a file goes on to the tables.
            "fallthrough" => {
                if !boolean(entry, true, diagnostics) {
                    diagnostics.warning(entry.key_place, "static.fallthrough: false is not supported, ignored");
                }
            }
            "extensions" | "notFound" | "path" | "root" => not_supported(entry, "static", diagnostics),
            _ => unknown_option(entry, "static", &["files", "urlPath", "index", "fallthrough"], diagnostics),
        }
    }
    result
}

/// The options of a section that must name files.
fn options<'s, 'a>(section: &'s Entry<'a>, diagnostics: &mut Diagnostics) -> &'s [Entry<'a>] {
    match section.value.map() {
        Some(entries) if entries.iter().any(|entry| entry.key == "files") => entries,
        Some(entries) => {
            diagnostics.error(section.key_place, format!("{} has no `files` (expected a path or glob)", section.key));
            entries
        }
        None => {
            let found = section.value.describe();
            let message = format!("{}: found {found} (expected a map with `files`)", section.key);
            diagnostics.error(section.value.place, message);
            &[]
        }
    }
}

/// A string or a list of strings.
fn globs<'a>(entry: &Entry<'a>, diagnostics: &mut Diagnostics) -> Vec<Glob<'a>> {
    let nodes = match &entry.value.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(&entry.value),
    };
    let mut globs = Vec::new();
    for node in nodes {
        let Some(text) = node.text() else {
            let found = node.describe();
            diagnostics.error(node.place, format!("files: found {found} (expected a path, a glob or a list of them)"));
            continue;
        };
        match Glob::parse(text, node.place) {
            Ok(glob) => globs.push(glob),
            Err(message) => diagnostics.error(node.place, format!("files: {message}")),
        }
    }
    globs
}

fn boolean(entry: &Entry<'_>, default: bool, diagnostics: &mut Diagnostics) -> bool {
    entry.value.boolean().unwrap_or_else(|| {
        wrong(entry, "true or false", diagnostics);
        default
    })
}

fn wrong(entry: &Entry<'_>, expected: &str, diagnostics: &mut Diagnostics) {
    let found = entry.value.describe();
    diagnostics.error(entry.value.place, format!("{}: found {found} (expected {expected})", entry.key));
}

fn not_supported(entry: &Entry<'_>, section: &str, diagnostics: &mut Diagnostics) {
    diagnostics.warning(entry.key_place, format!("{section}.{} is not supported, ignored", entry.key));
}

fn unknown_option(entry: &Entry<'_>, section: &str, known: &[&str], diagnostics: &mut Diagnostics) {
    let hint = suggestion(&entry.key, known.iter().copied());
    diagnostics.error(entry.key_place, format!("unknown key {section}.{}{hint}", entry.key));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Config<'static>, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let config = Config::parse("config.yaml", text, &mut diagnostics);
        (config, diagnostics.lines())
    }

    fn texts(globs: &[Glob<'_>]) -> Vec<String> {
        globs.iter().map(|glob| glob.text.clone()).collect()
    }

    #[test]
    fn the_demo_configurations() {
        let (config, lines) = parse("graphqlSchema:\n  files: \"schema.graphql\"\nrest: true\n");
        assert!(config.rest && config.web_socket && lines.is_empty(), "{lines:?}");
        assert_eq!(texts(&config.schema), ["schema.graphql"]);

        let text = "rest: true\ngraphqlSchema:\n  files: schema.graphql\njsResource:\n  files: resources.js\n\
                    static:\n  files: dist/**\n  urlPath: /app/\n  index: false\n  fallthrough: true\n";
        let (config, lines) = parse(text);
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(texts(&config.resources), ["resources.js"]);
        assert_eq!(texts(&config.static_files.files), ["dist/**"]);
        assert_eq!((config.static_files.url_path.as_str(), config.static_files.index), ("app", false));
    }

    #[test]
    fn other_forms() {
        let (config, lines) = parse("rest:\n  webSocket: false\ngraphqlSchema: {files: [a.graphql, 'b/*.graphql']}\n");
        assert!(config.rest && !config.web_socket && lines.is_empty(), "{lines:?}");
        assert_eq!(texts(&config.schema), ["a.graphql", "b/*.graphql"]);
        for text in ["", "# nothing\n", "---\n", "rest: false\n"] {
            let (config, lines) = parse(text);
            assert!(!config.rest && config.schema.is_empty() && lines.is_empty(), "{text:?} {lines:?}");
        }
        assert_eq!(texts(&Config::without_file("config.yaml").schema), ["*.graphql"]);
    }

    #[test]
    fn reports() {
        for (text, expected) in [
            ("rset: true\n", "config.yaml:1:1: error: unknown key rset (did you mean rest?)"),
            ("rest: true\nfoo: 1\n", "config.yaml:2:1: error: unknown key foo"),
            ("rest: maybe\n", "config.yaml:1:7: error: rest: found `maybe` (expected true, false or a map of options)"),
            ("rest: 'true'\n", "config.yaml:1:7: error: rest: found `true` (expected true, false or a map of options)"),
            (
                "rest:\n  websocket: true\n",
                "config.yaml:2:3: error: unknown key rest.websocket (did you mean webSocket?)",
            ),
            ("rest: {lastModified: true}\n", "config.yaml:1:8: warning: rest.lastModified is not supported, ignored"),
            ("roles:\n  files: roles.yaml\n", "config.yaml:1:1: warning: roles is not supported yet, ignored"),
            ("'@x/y':\n  package: '@x/y'\n", "config.yaml:1:1: warning: plugin package @x/y is not supported, ignored"),
            (
                "graphqlSchema: true\n",
                "config.yaml:1:16: error: graphqlSchema: found `true` (expected a map with `files`)",
            ),
            ("jsResource: {}\n", "config.yaml:1:1: error: jsResource has no `files` (expected a path or glob)"),
            (
                "static:\n  files: ../x\n",
                "config.yaml:2:10: error: files: `../x` (expected a path or glob inside the app folder)",
            ),
            (
                "static:\n  files: [a, {b: c}]\n",
                "config.yaml:2:14: error: files: found a map (expected a path, a glob or a list of them)",
            ),
            (
                "static: {files: a, fallthrough: false}\n",
                "config.yaml:1:20: warning: static.fallthrough: false is not supported, ignored",
            ),
            ("static: {files: a, index: 3}\n", "config.yaml:1:27: error: index: found `3` (expected true or false)"),
            (
                "static: {files: a, urlPath: ../b}\n",
                "config.yaml:1:29: error: urlPath: found `../b` (expected a path such as /static)",
            ),
            (
                "webSocketEcho: echo\n",
                "config.yaml:1:16: error: webSocketEcho: found `echo` (expected a path such as /echo)",
            ),
            ("- rest\n", "config.yaml:1:1: error: found a list (expected a map of plugins)"),
        ] {
            assert_eq!(parse(text).1, [expected], "{text:?}");
        }
        assert_eq!(parse("a: 1\nb: 2\nrest: x\n").1.len(), 3, "all errors are collected");
    }
}
