//! An app: the folder with `config.yaml`, `schema.graphql` and static files that says what this server serves. Called
//! by `cli`; the result is given to `server::run`.

mod config;
mod files;
mod resources;
#[doc(hidden)] // for the fuzzer
pub mod sdl;
mod source;

pub use crate::diagnostic::{Diagnostic, Severity};
use crate::protocol::http::files::StaticFiles;

use crate::diagnostic::{Diagnostics, Place};
use config::{Config, EchoPath};
use shards::schema::TableDef;
use source::Source;
use std::path::Path;

const CONFIG_FILE: &str = "config.yaml";

/// The app of `tablecast dev` without a folder: Harper's two demos in one.
const DEMO: &[(&str, &[u8])] = &[
    (CONFIG_FILE, include_bytes!("demo/config.yaml")),
    ("schema.graphql", include_bytes!("demo/schema.graphql")),
    ("resources.js", include_bytes!("demo/resources.js")),
    ("web/index.html", include_bytes!("demo/web/index.html")),
    ("web/style.css", include_bytes!("demo/web/style.css")),
    ("web/app.js", include_bytes!("demo/web/app.js")),
];

#[derive(Debug)]
pub struct App {
    /// Of the folder; `demo` for the built-in one.
    pub name: String,
    /// In order of declaration.
    pub tables: Vec<TableDef>,
    /// Whether tables have an HTTP face at all (REST, SSE, WebSocket). The switches of every export already say so;
    /// this is for the start-up line and for a sensible 404.
    pub rest: bool,
    pub static_files: StaticFiles,
    /// Path of the WebSocket that echoes.
    pub web_socket_echo: Option<String>,
    pub warnings: Vec<Diagnostic>,
}

impl App {
    /// # Errors
    /// Everything that is wrong with the app, warnings included.
    pub fn load(dir: &Path) -> Result<App, Vec<Diagnostic>> {
        let shown = dir.display().to_string();
        let problem = match dir.canonicalize() {
            Ok(folder) if folder.is_dir() => {
                let name = folder.file_name().map_or("app".to_owned(), |name| name.to_string_lossy().into_owned());
                return App::read(name, &Source::Folder(folder));
            }
            Ok(_) => "is not a folder (expected the folder of an app)".to_owned(),
            Err(error) => format!("{error} (expected the folder of an app)"),
        };
        Err(vec![Diagnostic { file: shown, line: 0, column: 0, message: problem, severity: Severity::Error }])
    }

    /// The built-in app.
    pub fn demo() -> App {
        let demo = App::read("demo".to_owned(), &Source::Embedded(DEMO));
        demo.expect("the built-in app is part of the program, and a test loads it")
    }

    fn read(name: String, source: &Source) -> Result<App, Vec<Diagnostic>> {
        let mut diagnostics = Diagnostics::default();
        let config = read_config(source, &mut diagnostics);
        let mut tables = read_schema(source, &config, &mut diagnostics);
        // Without the schema's tables, each re-export would be one more error about the same mistake.
        if !diagnostics.has_errors() {
            read_resources(source, &config, &mut tables, &mut diagnostics);
        }
        let static_files = files::load(source, &config.static_files, &mut diagnostics);
        if !diagnostics.has_errors() && tables.is_empty() && config.web_socket_echo.is_none() {
            diagnostics.warning(Place::whole(CONFIG_FILE), "the app has no tables");
        }
        for export in tables.iter_mut().flat_map(|table| &mut table.exports) {
            export.rest &= config.rest;
            export.sse &= config.rest;
            export.ws &= config.rest && config.web_socket;
        }
        if let Some(echo) = &config.web_socket_echo {
            check_echo(echo, &tables, &mut diagnostics);
        }
        let (rest, echo) = (config.rest, config.web_socket_echo.map(|echo| echo.path));
        diagnostics.finish(()).map(|((), warnings)| App {
            name,
            tables,
            rest,
            static_files,
            web_socket_echo: echo,
            warnings,
        })
    }
}

fn read_config(source: &Source, diagnostics: &mut Diagnostics) -> Config<'static> {
    if !source.has(CONFIG_FILE) {
        return Config::without_file(CONFIG_FILE);
    }
    let text = source.read_text(CONFIG_FILE, diagnostics).unwrap_or_default();
    Config::parse(CONFIG_FILE, &text, diagnostics)
}

fn read_schema(source: &Source, config: &Config<'_>, diagnostics: &mut Diagnostics) -> Vec<TableDef> {
    let texts = read_all(source, &config.schema, diagnostics);
    let documents: Vec<_> = texts.iter().map(|(path, text)| sdl::parse(path, text, diagnostics)).collect();
    sdl::define(&documents, diagnostics)
}

fn read_resources(source: &Source, config: &Config<'_>, tables: &mut [TableDef], diagnostics: &mut Diagnostics) {
    for (path, text) in read_all(source, &config.resources, diagnostics) {
        resources::apply(&path, &text, tables, diagnostics);
    }
}

/// A table's records would be out of reach below the path of the echo.
fn check_echo(echo: &EchoPath<'_>, tables: &[TableDef], diagnostics: &mut Diagnostics) {
    let path = &echo.path[1..];
    let covers = |own: &str| {
        let rest = path.strip_prefix(own);
        own.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let owner = tables.iter().find(|table| table.exports.iter().any(|export| export.ws && covers(&export.path)));
    if let Some(table) = owner {
        let message = format!("`{}` is taken by table {} (expected a free path)", echo.path, table.name);
        diagnostics.error(echo.place, message);
    }
}

/// Path and text of every file that the globs name, each once.
fn read_all(source: &Source, globs: &[source::Glob<'_>], diagnostics: &mut Diagnostics) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for glob in globs {
        for path in source.find(glob, diagnostics) {
            if files.iter().any(|(earlier, _)| *earlier == path) {
                continue;
            }
            if let Some(text) = source.read_text(&path, diagnostics) {
                files.push((path, text));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::files::Lookup;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("tempdir");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        folder
    }

    fn paths(app: &App) -> Vec<(&str, Vec<&str>)> {
        app.tables
            .iter()
            .map(|table| (table.name.as_str(), table.exports.iter().map(|it| it.path.as_str()).collect()))
            .collect()
    }

    fn lines(diagnostics: Vec<Diagnostic>) -> Vec<String> {
        diagnostics.iter().map(Diagnostic::to_string).collect()
    }

    #[test]
    fn the_demo_loads_without_warnings() {
        let app = App::demo();
        assert_eq!(lines(app.warnings.clone()), Vec::<String>::new());
        assert_eq!(paths(&app), [("Topics", vec!["", "Topics"]), ("Sensors", vec!["Sensors"])]);
        assert!(app.rest && app.tables.iter().all(|table| table.primary_key == Some(0)));
        assert!(matches!(app.static_files.get("/"), Lookup::File(_)));
        assert!(matches!(app.static_files.get("/config.yaml"), Lookup::None));
    }

    #[test]
    fn a_folder_without_configuration() {
        let app = App::load(folder(&[("x.graphql", "type A @table @export"), ("y/z.graphql", "?")]).path());
        let app = app.expect("loads");
        assert!(app.rest && app.static_files.is_empty());
        assert_eq!(paths(&app), [("A", vec!["A"])]);
    }

    #[test]
    fn rest_narrows_the_exports() {
        for (config, expected) in [
            ("graphqlSchema: {files: '*.graphql'}", (false, [false, false, false, true])),
            ("rest: true\ngraphqlSchema: {files: '*.graphql'}", (true, [true, true, true, true])),
            ("rest: {webSocket: false}\ngraphqlSchema: {files: '*.graphql'}", (true, [true, true, false, true])),
        ] {
            let folder = folder(&[("config.yaml", config), ("a.graphql", "type A @table @export")]);
            let app = App::load(folder.path()).expect("loads");
            let export = &app.tables[0].exports[0];
            assert_eq!((app.rest, [export.rest, export.sse, export.ws, export.mqtt]), expected, "{config}");
        }
    }

    #[test]
    fn an_echo_is_where_no_table_is() {
        let taken = |path: &str, table: &str| {
            vec![format!("config.yaml:2:16: error: `{path}` is taken by table {table} (expected a free path)")]
        };
        for (rest, path, schema, expected) in [
            ("true", "/echo", "type A @table @export", vec![]),
            ("true", "/", "type A @table @export", vec![]),
            ("true", "/Ab", "type A @table @export", vec![]),
            ("true", "/A", "type A @table @export", taken("/A", "A")),
            ("true", "/A/echo", "type A @table @export", taken("/A/echo", "A")),
            ("true", "/echo", "type A @table @export(name: \"\")", taken("/echo", "A")),
            ("{webSocket: false}", "/echo", "type A @table @export(name: \"\")", vec![]),
        ] {
            let config = format!("rest: {rest}\nwebSocketEcho: {path}\ngraphqlSchema: {{files: '*.graphql'}}");
            let folder = folder(&[("config.yaml", &config), ("a.graphql", schema)]);
            let found = App::load(folder.path()).map(|app| app.web_socket_echo);
            let wanted = if expected.is_empty() { Ok(Some(path.to_owned())) } else { Err(expected) };
            assert_eq!(found.map_err(lines), wanted, "{config} {schema}");
        }
    }

    #[test]
    fn errors_of_all_files_are_collected() {
        let folder = folder(&[
            ("config.yaml", "rset: true\ngraphqlSchema: {files: '*.graphql'}\njsResource: {files: none.js}\n"),
            ("a.graphql", "type A @tabel"),
            ("b.graphql", "type B {"),
        ]);
        assert_eq!(
            lines(App::load(folder.path()).expect_err("is wrong")),
            [
                "config.yaml:1:1: error: unknown key rset (did you mean rest?)",
                "b.graphql:1:9: error: found the end of the file (expected `}` of type B)",
                "a.graphql:1:9: error: unknown directive @tabel (did you mean @table?)",
            ]
        );
    }

    #[test]
    fn files_that_cannot_be_read() {
        let large = "#".repeat(1 + (1 << 20));
        for (files, expected) in [
            (vec![("a.graphql", large.as_str())], "a.graphql: error: is too large (expected at most 1048576 bytes)"),
            (
                vec![("config.yaml", "graphqlSchema:\n  files: s.graphql")],
                "config.yaml:2:10: error: s.graphql does not exist (expected a file of the app folder)",
            ),
            (vec![("config.yaml/x", "")], "config.yaml: error: Is a directory (os error 21)"),
        ] {
            let folder = folder(&files);
            assert_eq!(lines(App::load(folder.path()).expect_err("is wrong")), [expected]);
        }
        let missing = App::load(Path::new("/nonexistent/app")).expect_err("is missing");
        assert!(missing.len() == 1 && missing[0].to_string().contains("expected the folder of an app"));
    }

    /// Every prefix of valid texts, and every character replaced by one that does not belong there.
    #[test]
    fn broken_texts_are_reported_and_never_panic() {
        let read = |config: &str, schema: &str, module: &str| {
            let mut diagnostics = Diagnostics::default();
            Config::parse("c", config, &mut diagnostics);
            let mut tables = sdl::define(&[sdl::parse("s", schema, &mut diagnostics)], &mut diagnostics);
            resources::apply("r", module, &mut tables, &mut diagnostics);
        };
        let config = "static: {files: ['web/**', \"é\"], urlPath: /x}\nrest: true\n";
        let schema = "\"\"\" é \"\"\" type T @table(table: \"\\u00e9\\n\", expiration: 1.5e3) { a: [ID!]! @indexed }";
        let module = "import { tables } from 'harper'; /* é */ export class É extends tables.T {}\nexport { É as x }";
        let broken = |text: &str| -> Vec<String> {
            let replaced = |(at, c): (usize, char)| {
                ["\"", "'", "{", "}", "(", ")", "[", "é", "\\", "\n", "\0", "/*"]
                    .map(|by| format!("{}{by}{}", &text[..at], &text[at + c.len_utf8()..]))
            };
            let prefixes = text.char_indices().map(|(at, _)| text[..at].to_owned());
            prefixes.chain(text.char_indices().flat_map(replaced)).collect()
        };
        broken(config).iter().for_each(|text| read(text, "", ""));
        broken(schema).iter().for_each(|text| read("", text, ""));
        broken(module).iter().for_each(|text| read("", schema, text));
    }
}
