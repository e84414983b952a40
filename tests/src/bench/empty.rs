//! The floor: programs of two instructions, which let every packet pass. What they cost is what
//! the kernel's hook costs, whatever is attached there.

use std::fs::File;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::cgroup_skb::CgroupSkbLinkId;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program};
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};
use object::{SymbolFlags, SymbolKind, SymbolScope};

use crate::sandbox::Cgroups;

/// `r0 = 1; exit`
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Sections and names of the programs, and where they attach.
const PROGRAMS: [(&str, &str, CgroupSkbAttachType); 2] = [
    ("cgroup_skb/egress", "empty_egress", CgroupSkbAttachType::Egress),
    ("cgroup_skb/ingress", "empty_ingress", CgroupSkbAttachType::Ingress),
];

/// The loaded programs.
#[derive(Debug)]
pub struct Empty {
    ebpf: Ebpf,
    attached: Vec<(&'static str, CgroupSkbLinkId)>,
}

impl Empty {
    /// Loads them.
    pub fn load() -> Result<Self> {
        let ebpf = Ebpf::load(&object()?).context("load empty programs")?;
        let mut made = Self { ebpf, attached: Vec::new() };
        for (_, name, _) in PROGRAMS {
            made.program(name)?.load().with_context(|| format!("load {name}"))?;
        }
        Ok(made)
    }

    /// The one at egress.
    pub fn egress(&mut self) -> Result<&mut CgroupSkb> {
        self.program(PROGRAMS[0].1)
    }

    /// Attaches both at the root of a hierarchy, or takes them off.
    pub fn set_attached(&mut self, cgroups: &Cgroups, attached: bool) -> Result<()> {
        if attached && self.attached.is_empty() {
            let root = cgroups.root();
            let root = File::open(root).with_context(|| format!("open {}", root.display()))?;
            for (_, name, at) in PROGRAMS {
                let link = self.program(name)?.attach(&root, at, CgroupAttachMode::Single);
                self.attached.push((name, link.with_context(|| format!("attach {name}"))?));
            }
        } else if !attached {
            for (name, link) in std::mem::take(&mut self.attached) {
                self.program(name)?.detach(link).with_context(|| format!("detach {name}"))?;
            }
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<&mut CgroupSkb> {
        match self.ebpf.program_mut(name) {
            Some(Program::CgroupSkb(program)) => Ok(program),
            _ => bail!("the object of empty programs has no {name}"),
        }
    }
}

/// An object with nothing but the programs.
fn object() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Text).to_vec();
    let licence = object.add_section(segment.clone(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(licence, b"GPL\0", 1);
    for (section, name, _) in PROGRAMS {
        let kind = SectionKind::Text;
        let section = object.add_section(segment.clone(), section.as_bytes().to_vec(), kind);
        object.append_section_data(section, &PASS, 8);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: PASS.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    object.write().context("make the object of empty programs")
}
