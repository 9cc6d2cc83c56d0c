# The test guest of accel.py for x86_64: it uses the processor as a Linux system does.
#
# QEMU loads it as a multiboot kernel (-kernel) at 1 MiB. It turns on paging and goes to 64-bit
# mode, then executes an instruction of each extension that a distribution's kernel or userland
# would use where the processor claims to have it. The name of each goes to the debug console
# (port 0xe9) first, so that the last word says what the accelerator couldn't do. At the end it
# writes to isa-debug-exit, which ends QEMU with 33. An exception on the way is a triple fault, as
# there is no interrupt table, and ends a QEMU with -no-reboot with another status.
#
# probe_guests.py has the bytes that this makes, and tests/unit/lima/test_probe_guests.py makes
# them again:
#   as --64 probe_x86_64.S -o probe.o
#   ld -m elf_x86_64 -Ttext=0x100000 --oformat binary probe.o -o probe.bin

	.set	EXIT_PORT, 0xf4
	.set	CONSOLE_PORT, 0xe9
	.set	TABLES, 0x200000	# three pages, zeroed by QEMU as everything up to ZEROED
	.set	SCRATCH, 0x203000
	.set	STACK, 0x205000
	.set	ZEROED, 0x206000

	.text
	.code32
	.globl	_start
header:					# of multiboot 1; flag 16: the addresses are here, not in an ELF
	.long	0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16))
	.long	header, header, end, ZEROED, _start

_start:					# protected mode, no paging
	movl	$TABLES + 0x1000 + 3, TABLES			# level 4: one entry, present, writable
	movl	$TABLES + 0x2000 + 3, TABLES + 0x1000		# level 3: the same
	movl	$0x000083, TABLES + 0x2000			# level 2: 0 to 2 MiB, a large page
	movl	$0x200083, TABLES + 0x2008			# and 2 to 4 MiB
	movl	$TABLES, %eax
	movl	%eax, %cr3
	movl	$0x620, %eax		# PAE; OSFXSR and OSXMMEXCPT for SSE
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	# EFER.LME
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	$0x80010033, %eax	# PG, WP, NE, ET, MP, PE
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $long_mode

	.balign	8
gdt:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff	# none, 64-bit code, data
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.code64
long_mode:
	movl	$0x10, %eax
	movl	%eax, %ss
	movl	%eax, %ds
	movl	%eax, %es
	movl	$STACK, %esp
	movl	$1, %eax		# %r12d, %r13d, %r14d: what CPUID claims
	cpuid
	movl	%ecx, %r12d
	movl	$7, %eax
	xorl	%ecx, %ecx
	cpuid
	movl	%ebx, %r13d
	movl	$0x80000001, %eax
	cpuid
	movl	%ecx, %r14d
	movl	%edx, %r15d
	movl	$SCRATCH, %ebx

	# try CLAIMS, BIT, NAME, INSTRUCTION: say its name and execute it, where it is claimed.
	.macro	try claims, bit, name, instruction:vararg
	btl	$\bit, \claims
	jnc	.Lnext\@
	leaq	.Lname\@(%rip), %rsi
	call	say
	\instruction
	jmp	.Lnext\@
.Lname\@:
	.asciz	"\name\n"
.Lnext\@:
	.endm

	try	%r12d, 0, sse3, haddps %xmm0, %xmm0
	try	%r12d, 9, ssse3, pshufb %xmm0, %xmm0
	try	%r12d, 19, sse4.1, pmulld %xmm0, %xmm0
	try	%r12d, 20, sse4.2, crc32l %eax, %eax
	try	%r12d, 1, pclmulqdq, pclmulqdq $0, %xmm0, %xmm0
	try	%r12d, 25, aes, aesenc %xmm0, %xmm0
	try	%r12d, 13, cx16, cmpxchg16b (%rbx)
	try	%r12d, 22, movbe, movbe (%rbx), %rax
	try	%r12d, 23, popcnt, popcnt %rax, %rax
	try	%r12d, 30, rdrand, rdrand %rax
	try	%r13d, 18, rdseed, rdseed %rax
	try	%r13d, 3, bmi1, andn %rax, %rax, %rax
	try	%r13d, 8, bmi2, shlx %rax, %rax, %rax
	try	%r13d, 19, adx, adcx %rax, %rax
	try	%r13d, 9, erms, movl $64, %ecx; movl %ebx, %edi; movl %ebx, %esi; rep movsb
	try	%r13d, 29, sha, sha256rnds2 %xmm0, %xmm0
	try	%r14d, 5, lzcnt, lzcnt %rax, %rax
	try	%r15d, 27, rdtscp, rdtscp

	btl	$26, %r12d		# without XSAVE no AVX
	jnc	done
	movq	%cr4, %rax
	orl	$1 << 18, %eax		# OSXSAVE
	movq	%rax, %cr4
	movl	%r12d, %eax		# XCR0: x87 and SSE, and AVX where it is claimed
	shrl	$28 - 2, %eax
	andl	$4, %eax
	orl	$3, %eax
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xsetbv
	orl	$-1, %eax
	try	%r12d, 26, xsave, xsave64 (%rbx)
	btl	$28, %r12d		# without AVX nothing of what follows
	jnc	done
	try	%r12d, 28, avx, vxorps %ymm0, %ymm0, %ymm0
	try	%r12d, 29, f16c, vcvtph2ps %xmm0, %ymm0
	try	%r12d, 12, fma, vfmadd132ps %ymm0, %ymm0, %ymm0
	try	%r13d, 5, avx2, vpaddd %ymm0, %ymm0, %ymm0

done:
	movb	$0x10, %al		# QEMU ends with (0x10 << 1) | 1
	outb	%al, $EXIT_PORT
.Lstay:
	hlt
	jmp	.Lstay

say:					# the text at %rsi; changes %rax
	lodsb
	testb	%al, %al
	jz	.Lsaid
	outb	%al, $CONSOLE_PORT
	jmp	say
.Lsaid:
	ret
end:
