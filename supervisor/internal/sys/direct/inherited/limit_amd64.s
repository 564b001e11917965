#include "textflag.h"

// func getNofile(limit unsafe.Pointer) int64
TEXT ·getNofile(SB),NOSPLIT,$0-16
	MOVQ	$0, DI
	MOVQ	$7, SI		// RLIMIT_NOFILE
	MOVQ	$0, DX
	MOVQ	limit+0(FP), R10
	MOVQ	$302, AX	// prlimit64
	SYSCALL
	MOVQ	AX, ret+8(FP)
	RET
