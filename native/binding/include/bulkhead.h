/*
 * libbulkhead: KVM and host effects behind a C ABI. Linux, x86-64.
 * Generated from native/binding/src by `cargo run -p bulkhead-binding --example header`; do not edit.
 *
 * Every function that can fail returns 0 or a positive value, or a negative BH_ERROR_* code. The error's details are then JSON in the
 * calling thread's last error (bh_last_error) and, for functions with a `reply`, in the reply too.
 * Handles are opaque. A handle that is closed, or of another kind, is an error and never undefined behaviour.
 */

#ifndef BULKHEAD_H
#define BULKHEAD_H

#include <stddef.h>
#include <stdint.h>

/*
 Version of this ABI. A caller made for another version must not go on.
 */
#define BH_ABI_VERSION 1

/*
 An argument is malformed: a null pointer, bad JSON, an address that is not aligned.
 */
#define BH_ERROR_INVALID_ARGUMENT -1

/*
 The handle was never given out, is closed, or is of another kind.
 */
#define BH_ERROR_STALE_HANDLE -2

/*
 Another call uses the object now; a vCPU serves one call at a time.
 */
#define BH_ERROR_BUSY -3

/*
 The range lies outside of the guest's memory, or overlaps what is there.
 */
#define BH_ERROR_OUT_OF_RANGE -4

/*
 The kernel refused; the error's JSON has `errno`.
 */
#define BH_ERROR_SYSTEM -5

/*
 The caller's buffer is too small; the error's JSON has `needed_bytes`.
 */
#define BH_ERROR_BUFFER_TOO_SMALL -6

/*
 The object is not in a state that allows the call.
 */
#define BH_ERROR_WRONG_STATE -7

/*
 The library failed in itself. The object may be unusable; the process is not.
 */
#define BH_ERROR_PANIC -8

/*
 A run was ended by a kick.
 */
#define BH_EXIT_INTERRUPTED 0

/*
 The guest wrote to a port; the data follows.
 */
#define BH_EXIT_IO_OUT 1

/*
 The guest reads from a port: answer with `bh_vcpu_answer` before the next run.
 */
#define BH_EXIT_IO_IN 2

/*
 The guest reads an address without memory: answer with `bh_vcpu_answer` before the next run.
 */
#define BH_EXIT_MMIO_READ 3

/*
 The guest wrote to an address without memory; the data follows.
 */
#define BH_EXIT_MMIO_WRITE 4

/*
 The guest halted.
 */
#define BH_EXIT_HLT 5

/*
 The guest shut down, usually by a triple fault.
 */
#define BH_EXIT_SHUTDOWN 6

/*
 The processor refused the guest's state; `reason` is the processor's own.
 */
#define BH_EXIT_FAIL_ENTRY 7

/*
 KVM gave up; `reason` is the suberror, the data are up to 16 64-bit words.
 */
#define BH_EXIT_INTERNAL_ERROR 8

/*
 The guest asked for a reset or power-off; `reason` is the event's type.
 */
#define BH_EXIT_SYSTEM_EVENT 9

/*
 Another exit; `reason` is the kernel's exit reason.
 */
#define BH_EXIT_OTHER 10

/*
 One CPUID leaf.
 */
typedef struct {
  uint32_t function;
  uint32_t index;
  /*
   `KVM_CPUID_FLAG_*`; bit 0: the index matters.
   */
  uint32_t flags;
  uint32_t eax;
  uint32_t ebx;
  uint32_t ecx;
  uint32_t edx;
} BhCpuidEntry;

/*
 General registers, in the kernel's order.
 */
typedef struct {
  uint64_t rax;
  uint64_t rbx;
  uint64_t rcx;
  uint64_t rdx;
  uint64_t rsi;
  uint64_t rdi;
  uint64_t rsp;
  uint64_t rbp;
  uint64_t r8;
  uint64_t r9;
  uint64_t r10;
  uint64_t r11;
  uint64_t r12;
  uint64_t r13;
  uint64_t r14;
  uint64_t r15;
  uint64_t rip;
  uint64_t rflags;
} BhRegisters;

/*
 A segment register with its hidden part. `limit_bytes` is the last valid offset.
 */
typedef struct {
  uint64_t base;
  uint32_t limit;
  uint16_t selector;
  uint8_t kind;
  uint8_t present;
  uint8_t privilege;
  uint8_t default_size;
  uint8_t code_or_data;
  uint8_t long_mode;
  uint8_t granularity;
  uint8_t available;
  uint8_t unusable;
  uint8_t padding;
} BhSegment;

/*
 GDTR or IDTR.
 */
typedef struct {
  uint64_t base;
  uint16_t limit;
  uint16_t padding[3];
} BhDescriptorTable;

/*
 System registers.
 */
typedef struct {
  BhSegment cs;
  BhSegment ds;
  BhSegment es;
  BhSegment fs;
  BhSegment gs;
  BhSegment ss;
  BhSegment tr;
  BhSegment ldt;
  BhDescriptorTable gdt;
  BhDescriptorTable idt;
  uint64_t cr0;
  uint64_t cr2;
  uint64_t cr3;
  uint64_t cr4;
  uint64_t cr8;
  uint64_t efer;
  uint64_t apic_base;
  /*
   Pending external interrupts, one bit a vector.
   */
  uint64_t interrupt_bitmap[4];
} BhSystemRegisters;

/*
 Why a run ended.
 */
typedef struct {
  /*
   One of `BH_EXIT_*`.
   */
  uint32_t kind;
  /*
   Bytes of data that belong to the exit.
   */
  uint32_t data_bytes;
  /*
   Port, or guest-physical address.
   */
  uint64_t address;
  /*
   Reason, suberror or type, by kind.
   */
  uint64_t reason;
  /*
   Size of one access in bytes; a string instruction moves several at once.
   */
  uint32_t access_bytes;
  /*
   Host processor of a failed entry.
   */
  uint32_t host_cpu;
} BhExit;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the ABI that this library has; compare with `BH_ABI_VERSION`.
 */
uint32_t bh_abi_version(void);

/*
 Copies the calling thread's last error, JSON `{"code", "errno"?, "object", "message", "needed_bytes"?}`, with a closing zero byte, cut
 to `capacity`. Gives the length of the whole text without the zero; 0 if there was no error. `buffer` may be null if `capacity` is 0.

 # Safety
 `buffer` points to `capacity` writable bytes.
 */
size_t bh_last_error(char *buffer,
                     size_t capacity);

/*
 Closes a handle of any kind. A vCPU's run in progress ends; a file lock is released. A machine's memory stays until its vCPUs are closed.
 */
int32_t bh_close(uint64_t handle);

/*
 Frees a reply of this library. Null is allowed.

 # Safety
 `reply` came from this library and was not freed yet.
 */
void bh_free(char *reply);

/*
 Makes a bridge be as wanted, up and without spanning tree: `{"name", "address": {"address", "prefix_length"} | null, "mtu_bytes"}` →
 `{"index", "created", "hardware_address"}`. A link of another kind with that name is EEXIST.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_bridge_ensure(const char *request,
                         char **reply);

/*
 Deletes a link of any kind: `{"name"}` → `{"deleted"}`, false if there was none.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_link_delete(const char *request, char **reply);

/*
 Lists links: `{"name_prefix"}` → `[{"name", "index", "kind", "up", "mtu_bytes", "hardware_address", "bridge_index"}]`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_link_list(const char *request,
                     char **reply);

/*
 Lets the host forward IPv4: `{}` → `{"was_enabled"}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_forwarding_enable(const char *request, char **reply);

/*
 All addresses, and the routes of the main table: `{}` → `{"addresses": [{"address", "prefix_length", "link_index"}],
 "routes": [{"destination", "prefix_length", "gateway"?, "link_index"}]}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_route_list(const char *request,
                      char **reply);

/*
 Mounts an EROFS image read-only, nodev and nosuid: `{"image", "target", "force_loop"?}` → `{"method": "file" | "loop",
 "loop_device"?}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_erofs_mount(const char *request,
                       char **reply);

/*
 Unmounts: `{"target", "detach"?}` → `{"unmounted"}`, false if nothing was mounted there.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_unmount(const char *request, char **reply);

/*
 Lists mounts at and below a directory in the order they were made: `{"directory"}` → `[{"id", "parent_id", "device", "target",
 "file_system", "source", "options"}]`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_mount_list(const char *request,
                      char **reply);

/*
 Copies a file and keeps its holes; the target must not exist: `{"source", "target", "mode"}` → `{"size_bytes", "data_bytes"}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_file_copy_sparse(const char *request,
                            char **reply);

/*
 Room on the file system of a path: `{"path"}` → `{"free_bytes", "total_bytes", "free_inodes"}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_file_free_space(const char *request, char **reply);

/*
 A file's content, whatever of it is stored as holes: `{"path"}` → `{"sha256", "size_bytes", "data_bytes"}`. The digest is over the size and
 over number and bytes of each page of 4 KiB that is not all zeroes.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_file_hash_sparse(const char *request,
                            char **reply);

/*
 State of a process: `{"pid", "start_time_ticks"?}` → `{"pid", "parent_pid", "start_time_ticks", "state"}`. ESRCH if there is none, or
 if it started at another time.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_process_read(const char *request,
                        char **reply);

/*
 Frequency of the host's time-stamp counter: `{}` → `{"khz", "source": "kvm" | "cpuid" | "hypervisor" | "measured"}`.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_tsc_frequency(const char *request,
                         char **reply);

/*
 Locks a file exclusively until the handle is closed or the process ends: `{"path"}` → `{"handle", "descriptor"}`. EAGAIN if another
 process has it.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_file_lock(const char *request,
                     char **reply);

/*
 Holds on to a process: `{"pid", "start_time_ticks"?}` → `{"handle", "descriptor", "pid", "parent_pid", "start_time_ticks", "state"}`. The
 descriptor is readable when the process has ended.

 # Safety
 `request` is a zero-terminated string; `reply` is null or points to a pointer.
 */
int32_t bh_process_open(const char *request,
                        char **reply);

/*
 Signals a process that is held: 1 if it was there, 0 if it has ended. Signal 0 only asks.
 */
int32_t bh_process_signal(uint64_t process, int32_t signal);

/*
 Opens the KVM device at `path`, or /dev/kvm if `path` is null, and gives its handle.

 # Safety
 `path` is null or a zero-terminated string; `kvm` points to a `uint64_t`.
 */
int32_t bh_kvm_open(const char *path, uint64_t *kvm);

/*
 The version of the kernel's KVM interface; 12 for every Linux since 2.6.22.
 */
int32_t bh_kvm_api_version(uint64_t kvm);

/*
 What the kernel answers for the capability `KVM_CAP_*`: 0 if it lacks it, else 1 or a limit.
 */
int32_t bh_kvm_capability(uint64_t kvm, uint32_t capability);

/*
 Copies the CPUID leaves that a guest can have, and gives their number. Fails if `capacity` entries do not suffice; 256 always do.

 # Safety
 `entries` points to `capacity` entries.
 */
int32_t bh_kvm_supported_cpuid(uint64_t kvm,
                               BhCpuidEntry *entries,
                               uint32_t capacity);

/*
 Creates a machine without memory and vCPUs.

 # Safety
 `vm` points to a `uint64_t`.
 */
int32_t bh_vm_create(uint64_t kvm, uint64_t *vm);

/*
 Adds the kernel's PIC, IOAPIC and local APICs; before the first vCPU. A HLT then waits in the kernel for an interrupt.
 */
int32_t bh_vm_create_irqchip(uint64_t vm);

/*
 Adds zeroed memory that the library owns; gives the slot's number. Address and size are multiples of 4096 bytes.
 */
int32_t bh_vm_add_memory(uint64_t vm,
                         uint64_t guest_address,
                         uint64_t size_bytes);

/*
 Copies into guest memory. The range must lie within one slot.

 # Safety
 `bytes` points to `length` bytes.
 */
int32_t bh_vm_write(uint64_t vm, uint64_t guest_address, const uint8_t *bytes, size_t length);

/*
 Copies out of guest memory. The range must lie within one slot.

 # Safety
 `bytes` points to `length` writable bytes.
 */
int32_t bh_vm_read(uint64_t vm, uint64_t guest_address, uint8_t *bytes, size_t length);

/*
 Creates a vCPU in the state after reset, and its thread.

 # Safety
 `vcpu` points to a `uint64_t`.
 */
int32_t bh_vcpu_create(uint64_t vm, uint32_t index, uint64_t *vcpu);

/*
 Reads the general registers.

 # Safety
 `registers` points to a `BhRegisters`.
 */
int32_t bh_vcpu_get_registers(uint64_t vcpu, BhRegisters *registers);

/*
 Sets all general registers.

 # Safety
 `registers` points to a `BhRegisters`.
 */
int32_t bh_vcpu_set_registers(uint64_t vcpu, const BhRegisters *registers);

/*
 Reads the system registers.

 # Safety
 `registers` points to a `BhSystemRegisters`.
 */
int32_t bh_vcpu_get_system_registers(uint64_t vcpu, BhSystemRegisters *registers);

/*
 Sets all system registers.

 # Safety
 `registers` points to a `BhSystemRegisters`.
 */
int32_t bh_vcpu_set_system_registers(uint64_t vcpu, const BhSystemRegisters *registers);

/*
 Sets what the guest's CPUID instruction answers; before the first run.

 # Safety
 `entries` points to `count` entries.
 */
int32_t bh_vcpu_set_cpuid(uint64_t vcpu, const BhCpuidEntry *entries, uint32_t count);

/*
 Lets the guest run on the vCPU's own thread and returns at once. `bh_vcpu_event_fd` becomes readable when the run ends; fetch it with
 `bh_vcpu_finish`. Until then other calls on this vCPU, except `bh_vcpu_kick` and `bh_close`, fail with `BH_ERROR_BUSY`.
 */
int32_t bh_vcpu_begin(uint64_t vcpu);

/*
 A descriptor to poll for the end of a run. It belongs to the vCPU: never read or close it.
 */
int32_t bh_vcpu_event_fd(uint64_t vcpu);

/*
 The exit of the run that ended, and up to `capacity` bytes of its data; one page always suffices. With `wait` not 0 blocks until the
 run ends. `exit->data_bytes` is the data's whole length.

 # Safety
 `exit` points to a `BhExit`, `data` to `capacity` writable bytes.
 */
int32_t bh_vcpu_finish(uint64_t vcpu,
                       int32_t wait,
                       BhExit *exit,
                       uint8_t *data,
                       size_t capacity);

/*
 `bh_vcpu_begin` and `bh_vcpu_finish` in one: blocks the calling thread until the run ends.

 # Safety
 As `bh_vcpu_finish`.
 */
int32_t bh_vcpu_run(uint64_t vcpu, BhExit *exit, uint8_t *data, size_t capacity);

/*
 Gives the guest the value of the read that ended the last run, `exit->data_bytes` bytes, little-endian.

 # Safety
 `bytes` points to `length` bytes.
 */
int32_t bh_vcpu_answer(uint64_t vcpu,
                       const uint8_t *bytes,
                       size_t length);

/*
 Ends the run in progress: it exits with `BH_EXIT_INTERRUPTED`, unless it ends by itself at the same time. Gives 1 if there was a run,
 else 0; a kick is never kept for a later run. Allowed from any thread at any time.
 */
int32_t bh_vcpu_kick(uint64_t vcpu);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BULKHEAD_H */
