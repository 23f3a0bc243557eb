/**
 * The C declarations of libbulkhead as koffi reads them. Word for word those of `native/binding/include/bulkhead.h`, apart from koffi's
 * direction marks and `BhReply`, which is a `char *` that koffi frees; a test compares the two.
 */
export const functionDeclarations = {
  bh_abi_version: 'uint32_t bh_abi_version(void)',
  bh_last_error: 'size_t bh_last_error(void *buffer, size_t capacity)',
  bh_close: 'int32_t bh_close(uint64_t handle)',
  bh_free: 'void bh_free(void *reply)',

  bh_kvm_open: 'int32_t bh_kvm_open(const char *path, _Out_ uint64_t *kvm)',
  bh_kvm_api_version: 'int32_t bh_kvm_api_version(uint64_t kvm)',
  bh_kvm_capability: 'int32_t bh_kvm_capability(uint64_t kvm, uint32_t capability)',
  bh_kvm_supported_cpuid: 'int32_t bh_kvm_supported_cpuid(uint64_t kvm, BhCpuidEntry *entries, uint32_t capacity)',
  bh_vm_create: 'int32_t bh_vm_create(uint64_t kvm, _Out_ uint64_t *vm)',
  bh_vm_create_irqchip: 'int32_t bh_vm_create_irqchip(uint64_t vm)',
  bh_vm_add_memory: 'int32_t bh_vm_add_memory(uint64_t vm, uint64_t guest_address, uint64_t size_bytes)',
  bh_vm_write: 'int32_t bh_vm_write(uint64_t vm, uint64_t guest_address, const uint8_t *bytes, size_t length)',
  bh_vm_read: 'int32_t bh_vm_read(uint64_t vm, uint64_t guest_address, uint8_t *bytes, size_t length)',
  bh_vcpu_create: 'int32_t bh_vcpu_create(uint64_t vm, uint32_t index, _Out_ uint64_t *vcpu)',
  bh_vcpu_get_registers: 'int32_t bh_vcpu_get_registers(uint64_t vcpu, _Out_ BhRegisters *registers)',
  bh_vcpu_set_registers: 'int32_t bh_vcpu_set_registers(uint64_t vcpu, const BhRegisters *registers)',
  bh_vcpu_get_system_registers:
    'int32_t bh_vcpu_get_system_registers(uint64_t vcpu, _Out_ BhSystemRegisters *registers)',
  bh_vcpu_set_system_registers:
    'int32_t bh_vcpu_set_system_registers(uint64_t vcpu, const BhSystemRegisters *registers)',
  bh_vcpu_set_cpuid: 'int32_t bh_vcpu_set_cpuid(uint64_t vcpu, const BhCpuidEntry *entries, uint32_t count)',
  bh_vcpu_begin: 'int32_t bh_vcpu_begin(uint64_t vcpu)',
  bh_vcpu_event_fd: 'int32_t bh_vcpu_event_fd(uint64_t vcpu)',
  bh_vcpu_finish:
    'int32_t bh_vcpu_finish(uint64_t vcpu, int32_t wait, _Out_ BhExit *exit, uint8_t *data, size_t capacity)',
  bh_vcpu_run: 'int32_t bh_vcpu_run(uint64_t vcpu, _Out_ BhExit *exit, uint8_t *data, size_t capacity)',
  bh_vcpu_answer: 'int32_t bh_vcpu_answer(uint64_t vcpu, const uint8_t *bytes, size_t length)',
  bh_vcpu_kick: 'int32_t bh_vcpu_kick(uint64_t vcpu)',

  bh_bridge_ensure: 'int32_t bh_bridge_ensure(const char *request, _Out_ BhReply *reply)',
  bh_link_delete: 'int32_t bh_link_delete(const char *request, _Out_ BhReply *reply)',
  bh_link_list: 'int32_t bh_link_list(const char *request, _Out_ BhReply *reply)',
  bh_forwarding_enable: 'int32_t bh_forwarding_enable(const char *request, _Out_ BhReply *reply)',
  bh_route_list: 'int32_t bh_route_list(const char *request, _Out_ BhReply *reply)',
  bh_erofs_mount: 'int32_t bh_erofs_mount(const char *request, _Out_ BhReply *reply)',
  bh_unmount: 'int32_t bh_unmount(const char *request, _Out_ BhReply *reply)',
  bh_mount_list: 'int32_t bh_mount_list(const char *request, _Out_ BhReply *reply)',
  bh_file_copy_sparse: 'int32_t bh_file_copy_sparse(const char *request, _Out_ BhReply *reply)',
  bh_file_free_space: 'int32_t bh_file_free_space(const char *request, _Out_ BhReply *reply)',
  bh_file_hash_sparse: 'int32_t bh_file_hash_sparse(const char *request, _Out_ BhReply *reply)',
  bh_file_lock: 'int32_t bh_file_lock(const char *request, _Out_ BhReply *reply)',
  bh_process_read: 'int32_t bh_process_read(const char *request, _Out_ BhReply *reply)',
  bh_process_open: 'int32_t bh_process_open(const char *request, _Out_ BhReply *reply)',
  bh_tsc_frequency: 'int32_t bh_tsc_frequency(const char *request, _Out_ BhReply *reply)',
  bh_process_signal: 'int32_t bh_process_signal(uint64_t process, int32_t signal)',
} as const;

export type FunctionName = keyof typeof functionDeclarations;

/** Fields of the C structures, in order. */
export const structures = {
  BhCpuidEntry: {
    function: 'uint32_t',
    index: 'uint32_t',
    flags: 'uint32_t',
    eax: 'uint32_t',
    ebx: 'uint32_t',
    ecx: 'uint32_t',
    edx: 'uint32_t',
  },
  BhRegisters: Object.fromEntries(
    ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp']
      .concat(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'])
      .map((name) => [name, 'uint64_t']),
  ),
  BhSegment: {
    base: 'uint64_t',
    limit: 'uint32_t',
    selector: 'uint16_t',
    kind: 'uint8_t',
    present: 'uint8_t',
    privilege: 'uint8_t',
    default_size: 'uint8_t',
    code_or_data: 'uint8_t',
    long_mode: 'uint8_t',
    granularity: 'uint8_t',
    available: 'uint8_t',
    unusable: 'uint8_t',
    padding: 'uint8_t',
  },
  BhDescriptorTable: { base: 'uint64_t', limit: 'uint16_t', padding: 'uint16_t[3]' },
  BhSystemRegisters: {
    ...Object.fromEntries(['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'].map((name) => [name, 'BhSegment'])),
    gdt: 'BhDescriptorTable',
    idt: 'BhDescriptorTable',
    ...Object.fromEntries(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apic_base'].map((name) => [name, 'uint64_t'])),
    interrupt_bitmap: 'uint64_t[4]',
  },
  BhExit: {
    kind: 'uint32_t',
    data_bytes: 'uint32_t',
    address: 'uint64_t',
    reason: 'uint64_t',
    access_bytes: 'uint32_t',
    host_cpu: 'uint32_t',
  },
} as const satisfies Record<string, Record<string, string>>;
