//! What an object must be before anybody loads it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_abi::{ABI_SECTION, LICENCE, maps, programs};
use object::read::elf::ElfFile64;
use object::{Architecture, Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};

type Elf<'data> = ElfFile64<'data, Endianness>;

/// Where the loader looks for each program: the section names its kind and attach type.
const PROGRAM_SECTIONS: [(&str, &str); programs::ALL.len() + 1] = [
    (programs::EGRESS, "cgroup_skb/egress"),
    (programs::INGRESS, "cgroup_skb/ingress"),
    (programs::CONNECT4, "cgroup/connect4"),
    (programs::CONNECT6, "cgroup/connect6"),
    (programs::SENDMSG4, "cgroup/sendmsg4"),
    (programs::SENDMSG6, "cgroup/sendmsg6"),
    (programs::USAGE, "iter/cgroup"),
];

/// Checks an object, and says in one line what it is.
pub(super) fn inspect(object: &[u8], abi_version: u32) -> Result<String> {
    let elf = Elf::parse(object).context("it is not a 64-bit ELF file")?;
    ensure!(elf.architecture() == Architecture::Bpf, "it is for {:?}", elf.architecture());

    // Without BTF, nobody can read our maps with bpftool; without .BTF.ext, the verifier's
    // complaints name no source line.
    for name in [".BTF", ".BTF.ext"] {
        ensure!(!section(&elf, name)?.is_empty(), "its section {name} is empty");
    }

    let licence = section(&elf, "license")?;
    let wanted = format!("{LICENCE}\0").into_bytes();
    ensure!(
        licence == wanted,
        "its licence is {:?}, not {LICENCE:?}",
        String::from_utf8_lossy(licence)
    );

    let version = <[u8; 4]>::try_from(section(&elf, ABI_SECTION)?)
        .ok()
        .map(u32::from_le_bytes)
        .with_context(|| format!("its section {ABI_SECTION} is not 4 bytes"))?;
    ensure!(version == abi_version, "its ABI is {version}, not {abi_version}");

    let wanted = PROGRAM_SECTIONS
        .iter()
        .map(|(program, section)| format!("{program} in {section}"))
        .collect();
    same("programs", &wanted, &found_programs(&elf)?)?;
    let wanted = maps::ALL.iter().chain(&maps::OF_ONE_LOAD).map(ToString::to_string).collect();
    same("maps", &wanted, &found_maps(&elf)?)?;

    Ok(format!(
        "object: {} programs, {} maps, BTF, ABI {version}, {LICENCE}, {} KiB",
        programs::ALL.len(),
        maps::ALL.len(),
        object.len().div_ceil(1024)
    ))
}

fn section<'data>(elf: &Elf<'data>, name: &str) -> Result<&'data [u8]> {
    elf.section_by_name(name)
        .with_context(|| format!("it has no section {name}"))?
        .data()
        .with_context(|| format!("its section {name} cannot be read"))
}

/// Every function that stands in a section of its own, with that section's name.
fn found_programs(elf: &Elf<'_>) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        let section = elf.section_by_index(index)?.name()?;
        // Functions that programs call live in .text.
        if section != ".text" {
            found.insert(format!("{} in {section}", symbol.name()?));
        }
    }
    Ok(found)
}

fn found_maps(elf: &Elf<'_>) -> Result<BTreeSet<String>> {
    let maps = elf.section_by_name(".maps").context("it has no section .maps")?.index();
    elf.symbols()
        .filter(|symbol| symbol.section_index() == Some(maps))
        .filter(|symbol| symbol.kind() == SymbolKind::Data)
        .map(|symbol| Ok(symbol.name()?.to_owned()))
        .collect()
}

fn same(what: &str, wanted: &BTreeSet<String>, found: &BTreeSet<String>) -> Result<()> {
    let missing: Vec<&str> = wanted.difference(found).map(String::as_str).collect();
    let extra: Vec<&str> = found.difference(wanted).map(String::as_str).collect();
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    bail!("its {what} differ: missing [{}], extra [{}]", missing.join(", "), extra.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_its_section() {
        let listed = PROGRAM_SECTIONS.map(|(program, _)| program);
        assert_eq!(listed[..programs::ALL.len()], programs::ALL);
        assert_eq!(listed[programs::ALL.len()..], [programs::USAGE]);
    }

    #[test]
    fn what_is_no_object_is_refused_by_name() {
        let error = inspect(b"#!/bin/sh\n", 1).expect_err("a script is no object");
        assert_eq!(error.to_string(), "it is not a 64-bit ELF file");
        let own = std::env::current_exe().and_then(std::fs::read).expect("read this program");
        let error = inspect(&own, 1).expect_err("this program is no BPF object");
        assert!(error.to_string().starts_with("it is for"), "{error}");
    }

    #[test]
    fn a_difference_names_both_sides() {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let error = same("maps", &set(&["A", "B"]), &set(&["B", "C"])).expect_err("they differ");
        assert_eq!(error.to_string(), "its maps differ: missing [A], extra [C]");
    }
}
