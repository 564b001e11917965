#include "textflag.h"

// func clone(trap, a1, a2, a3 uintptr, p unsafe.Pointer) (r, errno uintptr)
//
// The child wakes up with our registers on its own stack, as a2 or the argument
// of clone3 says. The kernel keeps all of them but R0.
TEXT ·clone(SB),NOSPLIT,$0-56
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	p+32(FP), R9
	MOVD	trap+0(FP), R8
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	parent
	NEG	R0, R0
	MOVD	ZR, r+40(FP)
	MOVD	R0, errno+48(FP)
	RET
parent:
	MOVD	R0, r+40(FP)
	MOVD	ZR, errno+48(FP)
	RET
child:
	MOVD	ZR, R29		// no frame of ours lies above
	MOVD	R9, 8(RSP)	// 0(RSP) is for the return address
	MOVD	$·child(SB), R10	// not called by name: the linker would add its stack to ours
	CALL	(R10)
	BRK

// func raw(trap, a1, a2, a3, a4 uintptr) (r uintptr, err syscall.Errno)
TEXT ·raw(SB),NOSPLIT,$0-56
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	a4+32(FP), R3
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	trap+0(FP), R8
	SVC
	CMN	$4095, R0
	BCC	good
	NEG	R0, R0
	MOVD	$-1, R4
	MOVD	R4, r+40(FP)
	MOVD	R0, err+48(FP)
	RET
good:
	MOVD	R0, r+40(FP)
	MOVD	ZR, err+48(FP)
	RET
