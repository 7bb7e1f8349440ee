/* SPDX-License-Identifier: Apache-2.0 */
/* hello as a PVH ELF kernel: what a monitor boots by itself. It starts in 32-bit protected mode,
 * ring 0, flat segments (the x86/HVM direct boot ABI), though the ELF file is a 64-bit one, as
 * kernels are. It prints a line on COM1 and then obeys the
 * command line, a letter for each step:
 *   0..9  ends through isa-debug-exit with that number, if the device is there
 *   e     echoes COM1's input until a 'q' comes in
 *   n     counts for good, in ECX and in the word at COUNTER
 *   r     resets through the keyboard controller
 *   p     powers off through the ACPI registers (PM1a control at 0x604, S5)
 *   c     tells pvpanic that it has crashed
 *   other, or the end: stops for good
 * Only moves, arithmetic, compares, jumps and port I/O: any KVM can emulate those where it cannot
 * run ring 0. */

#define XEN_HVM_START_MAGIC_VALUE 0x336ec578
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_INFO_CMDLINE 24 /* low half of hvm_start_info.cmdline_paddr */
#define COM1 0x3f8
#define COM1_LINE_STATUS 0x3fd
#define DEBUG_EXIT 0x501
#define PVPANIC 0x505
#define PM1_CONTROL 0x604
#define KEYBOARD_COMMAND 0x64
#define COUNTER 0x500000

        .code32
        .section .text.start, "ax"
        .globl start
start:
        mov     (%ebx), %eax
        cmp     $XEN_HVM_START_MAGIC_VALUE, %eax
        jne     stop                    /* no boot protocol, no greeting */
        mov     START_INFO_CMDLINE(%ebx), %ebx
        mov     $message, %esi
print:
        mov     (%esi), %al
        cmp     $0, %al
        je      command
        mov     $COM1, %edx
        out     %al, (%dx)
        add     $1, %esi
        jmp     print

command:
        cmp     $0, %ebx                /* no command line at all */
        je      stop
        mov     (%ebx), %al
        add     $1, %ebx
        cmp     $'e', %al
        je      echo
        cmp     $'n', %al
        je      count
        cmp     $'r', %al
        je      reset
        cmp     $'p', %al
        je      power_off
        cmp     $'c', %al
        je      crash
        sub     $'0', %al
        cmp     $9, %al
        ja      stop
        mov     $DEBUG_EXIT, %edx
        out     %al, (%dx)
        jmp     command

echo:
        mov     $COM1_LINE_STATUS, %edx
        in      (%dx), %al
        and     $1, %al
        je      echo
        mov     $COM1, %edx
        in      (%dx), %al
        out     %al, (%dx)
        cmp     $'q', %al
        jne     echo
        jmp     command
count:
        mov     $0, %ecx
counting:
        add     $1, %ecx
        mov     %ecx, COUNTER
        jmp     counting
reset:
        mov     $0xfe, %al
        mov     $KEYBOARD_COMMAND, %edx
        out     %al, (%dx)
        jmp     stop
power_off:
        mov     $0x2000, %eax           /* SLP_EN, SLP_TYP 0 */
        mov     $PM1_CONTROL, %edx
        out     %ax, (%dx)
        jmp     stop
crash:
        mov     $1, %al
        mov     $PVPANIC, %edx
        out     %al, (%dx)
stop:
        cli
stopped:
        hlt
        jmp     stopped

message:
        .asciz  "hello from ring 0\n"

        .section .note.pvh, "a", @note
        .long   name_end - name
        .long   entry_end - entry
        .long   XEN_ELFNOTE_PHYS32_ENTRY
name:   .asciz  "Xen"
name_end:
        .balign 4
entry:  .quad   start                   /* 8 bytes, as in a 64-bit kernel */
entry_end:
        .balign 4

        .section .note.GNU-stack, "", @progbits
