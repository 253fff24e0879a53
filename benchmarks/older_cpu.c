/* Answers CPUID for a library in which `cpuid` was replaced by `ud2`: everything as it is, but for what is hidden.
 *
 * Preloaded by older_cpu.py, which says why. Both instructions are two bytes long, so that the code around them stays.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

/* Intel SDM vol. 2A, CPUID: leaf 7, subleaf 0. */
static const uint32_t AVX512_EBX = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t AVX512_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14); /* 11 is AVX512_VNNI */
static const uint32_t AVX512_EDX = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25); /* AMX too */
/* Leaf 7, subleaf 1: AVX_VNNI, AVX512_BF16, AMX_FP16, AVX_IFMA; AVX_VNNI_INT8, AVX_NE_CONVERT, AMX_COMPLEX, INT16, AVX10. */
static const uint32_t LATER_EAX = BIT(4) | BIT(5) | BIT(21) | BIT(23);
static const uint32_t LATER_EDX = BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19);

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)registers[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != 0x0b) { /* not one of ours: a real fault ends the process as it always would */
        signal(number, SIG_DFL);
        return;
    }
    uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, subleaf, a, b, c, d);
    if (leaf == 7 && subleaf == 0) {
        b &= ~AVX512_EBX;
        c &= ~AVX512_ECX;
        d &= ~AVX512_EDX;
    } else if (leaf == 7 && subleaf == 1) {
        a &= ~LATER_EAX;
        d &= ~LATER_EDX;
    } else if (leaf == 0x24) { /* AVX10's own leaf */
        a = b = c = d = 0;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, NULL);
}
