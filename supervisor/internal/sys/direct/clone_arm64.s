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
	CALL	·child(SB)
	BRK
