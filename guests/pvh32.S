/* SPDX-License-Identifier: Apache-2.0 */
/* A 32-bit guest as a PVH kernel: the entry, the stack, and the compiler's 32-bit output in a 64-bit
 * file, as kernels have it. The source is GUEST_CODE, its first function
 * GuestMain(const char* command_line). */
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_INFO_CMDLINE 24
#define STACK_TOP 0x80000

        .code32
        .section .text.start, "ax"
        .globl start
start:
        mov     $STACK_TOP, %esp
        mov     START_INFO_CMDLINE(%ebx), %eax
        push    %eax
        push    $0
        jmp     GuestMain

        .section .note.pvh, "a", @note
        .long   name_end - name
        .long   entry_end - entry
        .long   XEN_ELFNOTE_PHYS32_ENTRY
name:   .asciz  "Xen"
name_end:
        .balign 4
entry:  .quad   start
entry_end:
        .balign 4

        .section .text, "ax"
        .include GUEST_CODE
