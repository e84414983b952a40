//! What the schema and its CEL rules say, checked again: API servers before 1.25 drop CEL, and
//! files have no API server. Messages of rules are those of [`crate::rules`].

use std::collections::BTreeSet;

use bulkhead_core::{Requirement, Selector};

use crate::convert::{
    FieldProblem, MAX_NAMESPACES, MAX_REQUIREMENTS, MAX_VALUES, Result, too_many, wrong,
};
use crate::object::{LabelOperator, LabelRequirement, LabelSelector, Members, Preset};
use crate::rules::{self, Rule};

/// Longest DNS label (RFC 1123), label value, and name within a label's key.
const LABEL: usize = 63;
/// Longest DNS subdomain (RFC 1123).
const SUBDOMAIN: usize = 253;

/// Everything that is wrong with who is selected; addresses are checked where they are read.
pub(crate) fn members(members: &Members) -> Vec<FieldProblem> {
    const AT: &str = "spec.members";
    let mut problems = Vec::new();
    let Members { namespaces, namespace_selector, pod_selector, preset, addresses: _ } = members;
    let listed = [
        too_many(&format!("{AT}.namespaces"), namespaces.len(), MAX_NAMESPACES),
        namespace_names(&format!("{AT}.namespaces"), namespaces),
        rule(
            AT,
            rules::POD_SELECTOR_NARROWS,
            pod_selector.is_none() || namespace_selector.is_some() || !namespaces.is_empty(),
        ),
        rule(
            AT,
            rules::NAMESPACE_SELECTOR_SELECTS,
            namespace_selector.as_ref().is_none_or(|it| !is_empty(it)),
        ),
    ];
    problems.extend(listed.into_iter().filter_map(Result::err));
    let selectors = [("namespaceSelector", namespace_selector), ("podSelector", pod_selector)];
    for (name, given) in selectors {
        let given = given.as_ref().map(|given| selector(&format!("{AT}.{name}"), given));
        problems.extend(given.and_then(Result::err));
    }
    problems.extend(preset.iter().flat_map(|preset| self::preset(&format!("{AT}.preset"), preset)));
    problems
}

/// Whether a rule holds.
fn rule(field: &str, rule: Rule, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { wrong(field, rule.message) }
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.is_empty() && selector.match_expressions.is_empty()
}

fn namespace_names(field: &str, names: &[String]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if !is_dns_label(name) {
            return wrong(field, no_name("a namespace", name));
        }
        if !seen.insert(name) {
            return wrong(field, format!("\"{name}\" is there twice; keep one"));
        }
    }
    Ok(())
}

fn preset(field: &str, preset: &Preset) -> Vec<FieldProblem> {
    let Preset { kind, namespace, name } = preset;
    let label = |field: String, what: &str, text: &str| {
        if is_dns_label(text) { Ok(()) } else { wrong(field, no_name(what, text)) }
    };
    let checks = [
        rule(field, rules::PRESET_NEEDS_NAMESPACE, !kind.is_namespaced() || namespace.is_some()),
        rule(field, rules::PRESET_HAS_NO_NAMESPACE, kind.is_namespaced() || namespace.is_none()),
        label(format!("{field}.name"), &format!("a {}", kind.name()), name),
        namespace.as_ref().map_or(Ok(()), |namespace| {
            label(format!("{field}.namespace"), "a namespace", namespace)
        }),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

fn no_name(what: &str, name: &str) -> String {
    format!(
        "\"{name}\" is no name of {what}; write 1 to {LABEL} of a-z, 0-9 and '-', with a letter \
         or digit first and last"
    )
}

/// A selector as core has it.
pub(crate) fn selector(field: &str, selector: &LabelSelector) -> Result<Selector> {
    let LabelSelector { match_labels, match_expressions } = selector;
    too_many(&format!("{field}.matchLabels"), match_labels.len(), MAX_REQUIREMENTS)?;
    too_many(&format!("{field}.matchExpressions"), match_expressions.len(), MAX_REQUIREMENTS)?;
    let mut requirements = BTreeSet::new();
    for (key, value) in match_labels {
        let field = format!("{field}.matchLabels");
        label_key(&field, key)?;
        label_value(&field, value)?;
        requirements
            .insert(Requirement::In { key: key.clone(), values: BTreeSet::from([value.clone()]) });
    }
    for (index, one) in match_expressions.iter().enumerate() {
        requirements.insert(requirement(&format!("{field}.matchExpressions[{index}]"), one)?);
    }
    Ok(Selector(requirements))
}

fn requirement(field: &str, given: &LabelRequirement) -> Result<Requirement> {
    let LabelRequirement { key, operator, values } = given;
    label_key(&format!("{field}.key"), key)?;
    let compares = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
    rule(field, rules::OPERATOR_AND_VALUES, compares != values.is_empty())?;
    too_many(&format!("{field}.values"), values.len(), MAX_VALUES)?;
    for (index, value) in values.iter().enumerate() {
        label_value(&format!("{field}.values[{index}]"), value)?;
    }
    let (key, values) = (key.clone(), values.iter().cloned().collect());
    Ok(match operator {
        LabelOperator::In => Requirement::In { key, values },
        LabelOperator::NotIn => Requirement::NotIn { key, values },
        LabelOperator::Exists => Requirement::Exists { key },
        LabelOperator::DoesNotExist => Requirement::DoesNotExist { key },
    })
}

fn label_key(field: &str, key: &str) -> Result<()> {
    let (domain, name) = match key.rsplit_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    let domain = domain.is_none_or(|domain| {
        domain.len() <= SUBDOMAIN && between(domain, |c| lower(c) || matches!(c, '-' | '.'), lower)
    });
    if domain && !name.is_empty() && is_label_value(name) {
        return Ok(());
    }
    wrong(field, format!("\"{key}\" is no key of a label; write it like tier or example.com/tier"))
}

fn label_value(field: &str, value: &str) -> Result<()> {
    if is_label_value(value) {
        return Ok(());
    }
    let form = format!("at most {LABEL} letters, digits, '-', '_' and '.'");
    wrong(field, format!("\"{value}\" is no value of a label; write {form}"))
}

/// A DNS label (RFC 1123).
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= LABEL && between(text, |c| lower(c) || c == '-', lower)
}

fn is_label_value(text: &str) -> bool {
    let any = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| any(c) || matches!(c, '-' | '_' | '.');
    text.is_empty() || (text.len() <= LABEL && between(text, inner, any))
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether a text is of such characters, and begins and ends with such.
fn between(text: &str, inner: impl Fn(char) -> bool, ends: impl Fn(char) -> bool) -> bool {
    text.starts_with(&ends) && text.ends_with(&ends) && text.chars().all(inner)
}
