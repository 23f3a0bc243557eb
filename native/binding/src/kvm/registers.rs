//! The C shapes of register sets, and their way from and to the kernel's.

use kvm_bindings::{kvm_cpuid_entry2, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// General registers, in the kernel's order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct BhRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A segment register with its hidden part. `limit_bytes` is the last valid offset.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct BhSegment {
    pub base: u64,
    pub limit: u32,
    pub selector: u16,
    pub kind: u8,
    pub present: u8,
    pub privilege: u8,
    pub default_size: u8,
    pub code_or_data: u8,
    pub long_mode: u8,
    pub granularity: u8,
    pub available: u8,
    pub unusable: u8,
    pub padding: u8,
}

/// GDTR or IDTR.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct BhDescriptorTable {
    pub base: u64,
    pub limit: u16,
    pub padding: [u16; 3],
}

/// System registers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct BhSystemRegisters {
    pub cs: BhSegment,
    pub ds: BhSegment,
    pub es: BhSegment,
    pub fs: BhSegment,
    pub gs: BhSegment,
    pub ss: BhSegment,
    pub tr: BhSegment,
    pub ldt: BhSegment,
    pub gdt: BhDescriptorTable,
    pub idt: BhDescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
    /// Pending external interrupts, one bit a vector.
    pub interrupt_bitmap: [u64; 4],
}

/// One CPUID leaf.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct BhCpuidEntry {
    pub function: u32,
    pub index: u32,
    /// `KVM_CPUID_FLAG_*`; bit 0: the index matters.
    pub flags: u32,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

macro_rules! same_fields {
    ($ours:ident, $kernel:ident, $($field:ident = $kernel_field:ident),*) => {
        #[allow(clippy::needless_update)] // Some of the structures have padding to leave at zero.
        impl From<$kernel> for $ours {
            fn from(from: $kernel) -> Self {
                Self { $($field: from.$kernel_field.into(),)* ..Self::default() }
            }
        }
        #[allow(clippy::needless_update)]
        impl From<$ours> for $kernel {
            fn from(from: $ours) -> Self {
                Self { $($kernel_field: from.$field.into(),)* ..Self::default() }
            }
        }
    };
}

same_fields!(
    BhRegisters,
    kvm_regs,
    rax = rax,
    rbx = rbx,
    rcx = rcx,
    rdx = rdx,
    rsi = rsi,
    rdi = rdi,
    rsp = rsp,
    rbp = rbp,
    r8 = r8,
    r9 = r9,
    r10 = r10,
    r11 = r11,
    r12 = r12,
    r13 = r13,
    r14 = r14,
    r15 = r15,
    rip = rip,
    rflags = rflags
);
same_fields!(
    BhSegment,
    kvm_segment,
    base = base,
    limit = limit,
    selector = selector,
    kind = type_,
    present = present,
    privilege = dpl,
    default_size = db,
    code_or_data = s,
    long_mode = l,
    granularity = g,
    available = avl,
    unusable = unusable
);
same_fields!(BhDescriptorTable, kvm_dtable, base = base, limit = limit);
same_fields!(
    BhSystemRegisters,
    kvm_sregs,
    cs = cs,
    ds = ds,
    es = es,
    fs = fs,
    gs = gs,
    ss = ss,
    tr = tr,
    ldt = ldt,
    gdt = gdt,
    idt = idt,
    cr0 = cr0,
    cr2 = cr2,
    cr3 = cr3,
    cr4 = cr4,
    cr8 = cr8,
    efer = efer,
    apic_base = apic_base,
    interrupt_bitmap = interrupt_bitmap
);
same_fields!(
    BhCpuidEntry,
    kvm_cpuid_entry2,
    function = function,
    index = index,
    flags = flags,
    eax = eax,
    ebx = ebx,
    ecx = ecx,
    edx = edx
);
