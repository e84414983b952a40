//! The object file, checked before anything of it reaches the kernel.

use std::fs;
use std::path::Path;

use bulkhead_abi::{ABI_SECTION, ABI_VERSION};
use object::read::elf::ElfFile64;
use object::{Architecture, Endianness, Object as _, ObjectSection as _};

use super::error::BpfError;

/// Reads an object of this agent's ABI.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, BpfError> {
    let wrong = |what: String| BpfError::Object { path: path.to_owned(), what };
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let version = abi_version(&bytes).map_err(wrong)?;
    if version != ABI_VERSION {
        let path = path.to_owned();
        return Err(BpfError::Abi { path, object: version, agent: ABI_VERSION });
    }
    Ok(bytes)
}

fn abi_version(bytes: &[u8]) -> Result<u32, String> {
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|error| error.to_string())?;
    if elf.architecture() != Architecture::Bpf {
        return Err(format!("it is for {:?}", elf.architecture()));
    }
    let section = elf
        .section_by_name(ABI_SECTION)
        .ok_or_else(|| format!("it has no section {ABI_SECTION}"))?;
    let data = section.data().map_err(|error| error.to_string())?;
    let version = data.try_into().map_err(|_| format!("{ABI_SECTION} is not 4 bytes"))?;
    Ok(u32::from_ne_bytes(version))
}
