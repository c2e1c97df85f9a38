//! The page about the API for people, drawn from its description: nothing stands here that programs cannot read there.

use maud::{Markup, html};
use serde_json::Value as Json;

use super::assets;
use super::connect::words::ENGLISH;
use super::look::{self, Branding, Shell, Width};
use crate::api::{OPERATIONS, Row};
use crate::http::ProblemKind;

/// The page.
pub fn docs_page(description: &Json, description_path: &str) -> Markup {
    let mut branding = Branding::new("Chartgate", &ENGLISH);
    branding.logo = Some(assets::icon_href());
    let server = description["servers"][0]["url"].as_str().unwrap_or_default();
    let content = html! {
        div.head {
            h1 { "The API" }
            p.lead { "Version " (text(&description["info"]["version"])) " at " code { (server) } }
            p { a href=(description_path) { "The same for programs, as OpenAPI 3.1" } }
        }
        section.stack { (prose(text(&description["info"]["description"]))) }
        (first_call(server))
        section.stack {
            h2 id="operations" { "Operations" }
            ul.list.docs-index {
                @for row in OPERATIONS {
                    li { a href={ "#" (row.id) } { code { (row.method) " " (row.path) } } span.muted.small { (summary(description, row)) } }
                }
            }
        }
        @for row in OPERATIONS { (operation(description, row)) }
        section.stack {
            h2 id="schemas" { "Shapes" }
            @for (name, schema) in members(&description["components"]["schemas"]) {
                div.panel id={ "schema-" (name) } {
                    h3 { (name) }
                    (fields(schema))
                }
            }
        }
        (errors())
    };
    let shell = Shell { title: "API", branding: Some(&branding), words: &ENGLISH, width: Width::Wide };
    look::page(&shell, &content)
}

fn first_call(server: &str) -> Markup {
    html! {
        section.stack {
            h2 { "A first call" }
            p { "An operator makes a key with " code { "chartgate api-key create" } ". It is shown once." }
            pre.panel { code { "curl -H \"Authorization: Bearer $KEY\" " (server) "/patients" } }
        }
    }
}

fn summary<'d>(description: &'d Json, row: &Row) -> &'d str {
    text(&entry(description, row)["summary"])
}

fn entry<'d>(description: &'d Json, row: &Row) -> &'d Json {
    &description["paths"][row.path][row.method.as_str().to_ascii_lowercase()]
}

fn operation(description: &Json, row: &Row) -> Markup {
    let entry = entry(description, row);
    let parameters = entry["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let body = &entry["requestBody"]["content"]["application/json"]["schema"];
    html! {
        section.stack.rule id=(row.id) {
            h2 { (text(&entry["summary"])) }
            p { code { strong { (row.method) } " " (row.path) } }
            (prose(text(&entry["description"])))
            @if !parameters.is_empty() {
                h3 { "Parameters" }
                dl.facts {
                    @for parameter in parameters {
                        @let parameter = resolve(description, parameter);
                        dt {
                            code { (text(&parameter["name"])) } " "
                            span.muted { (text(&parameter["in"])) ", " (kind(&parameter["schema"])) }
                        }
                        dd { (prose(text(&parameter["description"]))) }
                    }
                }
            }
            @if !body.is_null() {
                h3 { "Body" }
                p { (link(body)) }
            }
            h3 { "Answers" }
            dl.facts {
                @for (status, answer) in members(&entry["responses"]) {
                    @let answer = resolve(description, answer);
                    dt {
                        code { (status) }
                        @for (media, content) in members(&answer["content"]) {
                            " " span.muted { (media) }
                            @if content["schema"]["$ref"].is_string() { " " (link(&content["schema"])) }
                        }
                    }
                    dd { (prose(text(&answer["description"]))) }
                }
            }
        }
    }
}

fn errors() -> Markup {
    html! {
        section.stack.rule id="errors" {
            h2 { "Errors" }
            p {
                "Every error has this form. Branch on " code { "code" } "; " code { "message" } " is for people, "
                code { "request_id" } " for whoever reads the log, and " code { "param" }
                " names the field or parameter, when there is one."
            }
            pre.panel { code { (EXAMPLE) } }
            dl.facts {
                @for kind in ProblemKind::ALL {
                    @let (status, family, code) = kind.parts();
                    dt id={ "error-" (code) "-" (status.as_u16()) } {
                        code { (code) } " " span.muted { (status.as_u16()) ", " code { (family) } }
                    }
                    dd { (prose(kind.about())) }
                }
            }
        }
    }
}

const EXAMPLE: &str = r#"{ "error": {
    "type": "conflict_error",
    "code": "external_id_already_exists",
    "message": "A patient with this id exists already.",
    "param": "patient_id",
    "doc_url": "https://connect.clinic.example/docs#errors",
    "request_id": "5b0f7c1e-2a55-4a0e-9a3e-2a2f0c7f9d10" } }"#;

fn fields(schema: &Json) -> Markup {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(text).collect();
    html! {
        dl.facts {
            @for (name, field) in members(&schema["properties"]) {
                dt {
                    code { (name) } " "
                    span.muted { (kind(field)) @if !required.contains(&name.as_str()) { ", optional" } }
                    @if field["$ref"].is_string() { " " (link(field)) }
                    @if field["items"]["$ref"].is_string() { " of " (link(&field["items"])) }
                }
                @if let Some(about) = field["description"].as_str() { dd { (prose(about)) } }
            }
        }
    }
}

/// What a schema is, in few words.
fn kind(schema: &Json) -> String {
    if let Some(constant) = schema["const"].as_str() {
        return format!("“{constant}”");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| value.as_str().unwrap_or("null")).collect::<Vec<_>>().join(" | ");
    }
    let mut words = match &schema["type"] {
        Json::String(name) => name.clone(),
        Json::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {
            schema["anyOf"].as_array().into_iter().flatten().map(kind).collect::<Vec<_>>().join(" or ")
        }
    };
    if let Some(format) = schema["format"].as_str() {
        words = format!("{words} ({format})");
    }
    let bound = |name: &str| schema[name].as_u64();
    for (least, most) in [("minimum", "maximum"), ("minLength", "maxLength")] {
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) => words = format!("{words}, {least} to {most}"),
            (None, Some(most)) => words = format!("{words}, at most {most}"),
            _ => {}
        }
    }
    if let Some(default) = bound("default") {
        words = format!("{words}, {default} by default");
    }
    words
}

fn link(schema: &Json) -> Markup {
    let name = text(&schema["$ref"]).rsplit('/').next().unwrap_or_default();
    html! { a href={ "#schema-" (name) } { (name) } }
}

fn resolve<'d>(description: &'d Json, part: &'d Json) -> &'d Json {
    let pointer = part["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    pointer.and_then(|pointer| description.pointer(pointer)).unwrap_or(part)
}

fn members(object: &Json) -> impl Iterator<Item = (&String, &Json)> {
    object.as_object().into_iter().flatten()
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// The little of `CommonMark` that the description uses: paragraphs, lists and code.
fn prose(text: &str) -> Markup {
    html! {
        @for block in text.split("\n\n").filter(|block| !block.is_empty()) {
            @if block.starts_with("- ") {
                ul.bullets { @for line in block.lines() { li { (inline(line.trim_start_matches("- "))) } } }
            } @else { p { (inline(block)) } }
        }
    }
}

fn inline(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_operation_and_every_error_and_nothing_from_elsewhere() {
        let description = crate::api::description("https://connect.clinic.example");
        let page = docs_page(&description, "/openapi.json").into_string();
        for row in OPERATIONS {
            assert!(page.contains(&format!("id=\"{}\"", row.id)), "{}", row.id);
        }
        for kind in ProblemKind::ALL {
            assert!(page.contains(&format!("<code>{}</code>", kind.parts().2)));
        }
        assert!(page.contains("id=\"errors\""), "where every error points to");
        for mark in ["src=\"", "href=\""] {
            for address in page.split(mark).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(address.starts_with(['/', '#']), "{address}");
            }
        }
        for target in page.split("href=\"#").skip(1) {
            let id = target.split('"').next().unwrap_or_default();
            assert!(page.contains(&format!("id=\"{id}\"")), "#{id} leads nowhere");
        }
        assert!(!page.contains('`'), "no markup is left unread");
    }
}
