//! docs/kernels.md, from the answers.

use std::fmt::Write as _;

use super::{Answers, Feature};

const INTRODUCTION: &str = "# Kernels

What each kernel can do, what Bulkhead does with it, and what it does instead where it is absent.
This page is made by `cargo xtask codegen` from the files in [kernels](kernels), which hold what the
agent's probe found by trying it (`bulkhead-agent probe --features`); `cargo xtask test` compares
them with the kernels that it runs on. `cargo xtask codegen --probe 6.1` asks a kernel anew.

**yes**: it was tried and works. **no**: it was tried and the kernel lacks it. **?**: it could not be
tried on that machine. The reasons are below the tables.
";

/// What no probe can ask: which runtimes tell of pods, and which of them were tried.
const RUNTIMES: &str = include_str!("runtimes.md");

/// The whole page.
pub(crate) fn render(all: &[Answers]) -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| Kernel | Asked | Machine |\n|---|---|---|\n");
    for answers in all {
        let Answers { kernel, release, machine, .. } = answers;
        let _ = writeln!(page, "| {kernel} | {release} | {machine} |");
    }
    // The kernel that every run asks has the words of today.
    let usual = all.iter().find(|answers| answers.kernel == "6.12").or(all.first());
    let features = usual.map(|answers| answers.features.as_slice()).unwrap_or_default();
    let mut group = "";
    for feature in features {
        if feature.group != group {
            group = &feature.group;
            heading(&mut page, group, all);
        }
        row(&mut page, feature, all);
    }
    reasons(&mut page, all);
    page.push_str(RUNTIMES);
    page
}

fn heading(page: &mut String, group: &str, all: &[Answers]) {
    let _ = write!(page, "\n## {group}\n\n| Feature | What for |");
    for answers in all {
        let _ = write!(page, " {} |", answers.kernel);
    }
    page.push_str(" Where it is absent |\n|---|---|");
    page.push_str(&"---|".repeat(all.len() + 1));
    page.push('\n');
}

fn row(page: &mut String, feature: &Feature, all: &[Answers]) {
    let _ = write!(page, "| {} | {} |", feature.name, feature.used);
    for answers in all {
        let cell = match answers.find(&feature.name).map(|feature| feature.answer.as_str()) {
            Some("present") => "yes",
            Some("absent") => "**no**",
            Some(_) => "?",
            None => "not asked",
        };
        let _ = write!(page, " {cell} |");
    }
    let _ = writeln!(page, " {} |", feature.fallback);
}

fn reasons(page: &mut String, all: &[Answers]) {
    page.push_str("\n## Why not\n");
    for answers in all {
        let _ = writeln!(page, "\n{}:\n", answers.kernel);
        let missing = answers.features.iter().filter(|feature| feature.why.is_some());
        for feature in missing {
            let _ = writeln!(page, "- {}: {}", feature.name, feature.told());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn each_kernel_is_a_column_and_each_refusal_has_its_reason() {
        let old = answers("6.1", &[("a", "present", None), ("b", "absent", Some("EINVAL"))]);
        let new = answers("6.12", &[("a", "unseen", Some("no")), ("b", "present", None)]);
        let page = render(&[old, new, answers("7.2", &[("a", "present", None)])]);
        assert!(page.contains("| Feature | What for | 6.1 | 6.12 | 7.2 | Where it is absent |\n"));
        assert!(page.contains("| a | use | yes | ? | yes | other way |\n"), "{page}");
        assert!(page.contains("| b | use | **no** | yes | not asked | other way |\n"), "{page}");
        assert!(page.contains("\n6.1:\n\n- b: absent (EINVAL)\n\n6.12:\n\n- a: unseen (no)\n"));
    }
}
