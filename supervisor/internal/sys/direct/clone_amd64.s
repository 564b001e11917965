#include "textflag.h"

// func clone(trap, a1, a2, a3 uintptr, p unsafe.Pointer) (r, errno uintptr)
//
// The child wakes up with our registers on its own stack, as a2 or the argument
// of clone3 says. The kernel keeps R12.
TEXT ·clone(SB),NOSPLIT,$0-56
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	p+32(FP), R12
	MOVQ	trap+0(FP), AX
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	parent
	NEGQ	AX
	MOVQ	$0, r+40(FP)
	MOVQ	AX, errno+48(FP)
	RET
parent:
	MOVQ	AX, r+40(FP)
	MOVQ	$0, errno+48(FP)
	RET
child:
	MOVQ	$0, BP		// no frame of ours lies above
	MOVQ	R12, 0(SP)
	LEAQ	·child(SB), AX	// not called by name: the linker would add its stack to ours
	CALL	AX
	INT	$3

// func raw(trap, a1, a2, a3, a4 uintptr) (r uintptr, err syscall.Errno)
TEXT ·raw(SB),NOSPLIT,$0-56
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	a4+32(FP), R10
	MOVQ	$0, R8
	MOVQ	$0, R9
	MOVQ	trap+0(FP), AX
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JLS	good
	NEGQ	AX
	MOVQ	$-1, r+40(FP)
	MOVQ	AX, err+48(FP)
	RET
good:
	MOVQ	AX, r+40(FP)
	MOVQ	$0, err+48(FP)
	RET
