/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.h: the protocol of docs/protocol.md as a Promela model. takeover.pml, change.pml and promotion.pml set the
 * bounds and include it; -DMUTANT_... leaves one rule out; tools/check-model runs them all. The rules (C1, L3, ...) and
 * the invariants (I1, ...) are those of the document.
 *
 * A step of the model is one atomic step of one node: a message received, a write that became durable, a decision.
 *
 * The network has no state of its own. All that a primary sends follows from its log and its commit index, which only grow
 * within an epoch, and all that a backup answers only grows likewise. So "any message of the past may arrive now, again,
 * in any order, or never" is: a node may at any time take any append out of sent[e], and the primary of e may at any time
 * count any acknowledgement of ack[e]. The same holds for promises (answer[e]) and for what the coordinator said
 * (primary[e], set[e]: every epoch is registered once): a node may hear of each as late as it likes.
 *
 * A crash is also the restart: all that is not durable is gone. A node that stays down is one that takes no more steps.
 *
 * A swap that is done after its node has crashed is like one that was done just before the crash and that nobody has heard of:
 * only the coordinator takes part in it, and any other swap of that epoch would have made it fail. So a takeover's swap is one
 * step, and a crash takes the swap of a change with it.
 *
 * Linearizable reads need no state either. A read whose commit index was current when it began is right whenever it is
 * answered. One whose index was behind is wrong, and could be answered at once if q members would confirm now: can_read()
 * must never be true then.
 *
 * A log is a number: three bits for each record, its epoch; index 1 in the lowest. Before index 1 everybody has the
 * same, committed, of epoch 1.
 */

#define NODES 3
#ifdef HEAL
#define EPOCH_PLACES (EPOCHS + 3)
#else
#define EPOCH_PLACES (EPOCHS + 1)
#endif

#ifdef WIPES
#define IDS   6                                     /* a member is a node in one incarnation */
#define ID(n) ((n) + 3 * incarnation[n])
#else
#define IDS   3
#define ID(n) (n)
#endif

#define PREFIX(log, i) ((log) & ((1 << (3 * (i))) - 1))
#define AT(log, i)     (((log) >> (3 * ((i) - 1))) & 7)
#define LENGTH(log) \
    ((log) >= 4096 -> 5 : ((log) >= 512 -> 4 : ((log) >= 64 -> 3 : ((log) >= 8 -> 2 : ((log) >= 1 -> 1 : 0)))))
#define PUSH(log, e)   ((log) | ((e) << (3 * LENGTH(log))))
#define LAST_EPOCH(log) ((log) == 0 -> 1 : AT(log, LENGTH(log)))
/* (epoch, index) of the last record, as a number that compares as the pair does; never 0 */
#ifdef MUTANT_T4_LONGEST
#define LAST(log)      (LENGTH(log) * 8 + LAST_EPOCH(log))
#else
#define LAST(log)      (LAST_EPOCH(log) * 8 + LENGTH(log))
#endif

#define BIT(set, i)    (((set) >> (i)) & 1)
#define SIZE(set)      (BIT(set, 0) + BIT(set, 1) + BIT(set, 2) + BIT(set, 3) + BIT(set, 4) + BIT(set, 5))
#ifdef MUTANT_Q_SMALL
#define Q(set)         ((SIZE(set) + 1) / 2)
#else
#define Q(set)         (SIZE(set) / 2 + 1)
#endif
#ifdef MUTANT_T4_FEW
#define R(set)         (SIZE(set) - Q(set) + 1 > 1 -> SIZE(set) - Q(set) : 1)
#else
#define R(set)         (SIZE(set) - Q(set) + 1)
#endif

/* ---- The coordinator's register, with its past ----------------------------------------------------------------------- */

byte epoch = 1;              /* registered last */
byte primary[EPOCH_PLACES];    /* of each epoch */
byte set[EPOCH_PLACES];        /* bits of ids */
bit stale[EPOCH_PLACES];       /* the primary's process has ended since: the nonce is not its own any more (C2) */
bit by_takeover[EPOCH_PLACES]; /* or by a change of the set */

/* ---- Messages --------------------------------------------------------------------------------------------------------- */

typedef answers {
    byte id[IDS];
};
short sent[EPOCH_PLACES];      /* the log of the primary of that epoch */
byte commit[EPOCH_PLACES];     /* its commit index */
answers ack[EPOCH_PLACES];     /* each member's highest acknowledged index (L2) */
answers answer[EPOCH_PLACES];  /* each member's promise: LAST of its durable log; 0: none */

/* ---- Nodes ------------------------------------------------------------------------------------------------------------ */

byte promise[NODES];         /* durable */
short disk[NODES];           /* the durable log */
short memory[NODES];         /* the log with what is being written */
byte checked[NODES];         /* last index compared with the primary of ... */
byte checked_epoch[NODES];   /* ... this epoch */
byte leads[NODES];           /* epoch; 0: none */
byte recovered[NODES];       /* of a primary whose opening record is not committed: end of the recovered log; else 0 */
bit unopened[NODES];         /* it is such a primary */
byte swap[NODES];            /* the set that it is asking the coordinator for; 0: none */
bit held[NODES];             /* S1 */
#ifdef WIPES
bit incarnation[NODES];
byte wipes;
#endif
#ifdef VOLATILE_PROMISE
byte promise_durable[NODES];
#endif

byte crashes;
byte takeovers;
byte changes;
#ifdef ALIKE
bit alike_no_more;
#endif
byte clients;                /* records that are not opening records */

/* ---- What really happened --------------------------------------------------------------------------------------------- */

short committed;             /* the records that some primary has declared committed */
byte made[EPOCH_PLACES];       /* highest index of a record made in that epoch: no second one of the same index may be (I1, I2) */

#ifdef TRACE
#define SAY(what, n, x, y) printf(what, n, x, y)
#else
#define SAY(what, n, x, y) skip
#endif

hidden byte a;
hidden byte b;
hidden byte count;
hidden short log;

/* I1, I2: a record (index, epoch) is made once. */
inline record_add(n, e) {
    assert(LENGTH(memory[n]) < RECORDS);
    memory[n] = PUSH(memory[n], e);
    assert(LENGTH(memory[n]) > made[e]);
    made[e] = LENGTH(memory[n]);
    sent[e] = memory[n]
}

/* So many records of n's memory are on its disk, in `count`. */
inline durable_count(n) {
    count = 0;
    do
    :: count < LENGTH(memory[n]) && PREFIX(disk[n], count + 1) == PREFIX(memory[n], count + 1) -> count++
    :: else -> break
    od
}

/* L2: what n may acknowledge now, and to whom. A primary's own disk counts only by this as well (L4). */
inline acknowledge(n) {
    durable_count(n);
#ifdef MUTANT_L4_MEMORY
    if
    :: leads[n] -> count = LENGTH(memory[n])
    :: else -> skip
    fi;
#endif
    if
    :: leads[n] -> a = leads[n]
    :: else ->
        a = checked_epoch[n];
#ifdef MUTANT_L2_TAIL
        count = (a -> LENGTH(disk[n]) : 0);
#else
        if
        :: count > checked[n] -> count = checked[n]
        :: else -> skip
        fi
#endif
    fi;
    if
    :: count > ack[a].id[ID(n)] -> ack[a].id[ID(n)] = count
    :: else -> skip
    fi;
    count = 0;
    a = 0
}

#ifdef VOLATILE_PROMISE
#define PROMISE_DURABLE(n) promise_durable[n] = promise[n]
#else
#define PROMISE_DURABLE(n) skip
#endif

inline step_down(n) {
    leads[n] = 0;
    recovered[n] = 0;
    unopened[n] = 0;
    held[n] = 0;
    swap[n] = 0
}

#if defined(MUTANT_L1_OLD_EPOCH) || defined(MUTANT_L2_TAG) || defined(MUTANT_C2_RESUME) || defined(MUTANT_R1_OLD_ROUND) || \
    defined(MUTANT_T2_EARLY) || defined(MUTANT_T3_SELF) || defined(VOLATILE_PROMISE)
#define REMEMBER /* they make use of what is of no use to others */
#endif

/* What nobody can use any more is forgotten, so that states that differ only in it are one. */
inline forget() {
    a = 1;
    do
    :: a <= epoch ->
#ifndef REMEMBER
        b = 0;
        do
        :: b < IDS ->
            if
            :: (leads[0] != a && leads[1] != a && leads[2] != a) || ack[a].id[b] < commit[a] -> ack[a].id[b] = 0
            :: else -> skip
            fi;
            b++
        :: else -> break
        od;
        if
        :: (promise[0] > a || leads[0] == a) && (promise[1] > a || leads[1] == a) && (promise[2] > a || leads[2] == a) ->
            sent[a] = 0;
            if
            :: leads[0] != a && leads[1] != a && leads[2] != a -> commit[a] = 0
            :: else -> skip
            fi
        :: else -> skip
        fi;
        if
        :: !by_takeover[a] || stale[a] || made[a] || promise[primary[a]] > a ->
            b = 0;
            do
            :: b < IDS -> answer[a].id[b] = 0; b++
            :: else -> break
            od
        :: else -> skip
        fi;
        if
        :: promise[0] > a && promise[1] > a && promise[2] > a && leads[0] != a && leads[1] != a && leads[2] != a ->
            primary[a] = 0;
            set[a] = 0;
            stale[a] = 0;
            by_takeover[a] = 0;
            made[a] = 0
        :: else -> skip
        fi;
#endif
        a++
    :: else -> break
    od;
    a = 0;
    b = 0
}

/* ---- Following -------------------------------------------------------------------------------------------------------- */

/* The append of epoch e with the record at index i reaches n. */
#ifdef MUTANT_L1_OLD_EPOCH
#define MAY_RECEIVE(n, e) (leads[n] < e)
#else
#define MAY_RECEIVE(n, e) (promise[n] <= e && leads[n] < e)
#endif
inline receive(n, e, i) {
    SAY("node %d receives from epoch %d the record at %d\n", n, e, i);
    if
    :: leads[n] -> step_down(n)
    :: else -> skip
    fi;
    if
    :: checked_epoch[n] != e -> checked_epoch[n] = e; checked[n] = 0
    :: else -> skip
    fi;
    if
    :: promise[n] < e ->
        promise[n] = e;
#ifndef MUTANT_L1_VOLATILE
        PROMISE_DURABLE(n)
#endif
    :: else -> skip
    fi;
    if
    :: i == 1 || (LENGTH(memory[n]) >= i - 1 && AT(memory[n], i - 1) == AT(sent[e], i - 1)) ->
        assert(PREFIX(memory[n], i - 1) == PREFIX(sent[e], i - 1)); /* I2 */
        if
        :: LENGTH(memory[n]) >= i && AT(memory[n], i) == AT(sent[e], i) ->
#ifdef MUTANT_L3_CUT
            memory[n] = PREFIX(memory[n], i);
            disk[n] = PREFIX(disk[n], i)
#else
            skip
#endif
        :: else -> /* the next, or a proven conflict (L3) */
            assert(LAST_EPOCH(committed) > e || LENGTH(memory[n]) < i || i > LENGTH(committed) ||
                   AT(memory[n], i) != AT(committed, i)); /* I3 (a deposed primary may do that to a node which knows neither) */
            memory[n] = PREFIX(sent[e], i)
        fi;
        if
        :: checked[n] < i -> checked[n] = i
        :: else -> skip
        fi
    :: else -> skip
    fi;
    acknowledge(n);
    /* L4: what n may now take for committed */
#ifdef MUTANT_L4_HINT
    b = LENGTH(memory[n]);
#else
    b = checked[n];
#endif
    if
    :: b > commit[e] -> b = commit[e]
    :: else -> skip
    fi;
    assert(PREFIX(memory[n], b) == PREFIX(committed, b)); /* I3 */
    b = 0;
    forget()
}

/* One more record of n is durable. Overwriting cuts what was behind. */
inline write(n) {
    SAY("node %d one more record is durable, memory %o, disk was %o\n", n, memory[n], disk[n]);
    durable_count(n);
    disk[n] = PREFIX(memory[n], count + 1);
    acknowledge(n);
    forget()
}

/* ---- Leading ---------------------------------------------------------------------------------------------------------- */

inline client_append(n) {
    SAY("node %d appends a record in epoch %d, log was %o\n", n, leads[n], memory[n]);
    clients++;
    record_add(n, leads[n]);
    acknowledge(n);
    forget()
}

/* In `count`: members of the set of e that acknowledged index i in e. */
#ifdef MUTANT_L2_TAG
#define ACKED(e, d, i) (ack[e].id[d] >= i || (e > 1 && primary[e - 1] == primary[e] && ack[e - 1].id[d] >= i) || \
                        (e > 2 && primary[e - 2] == primary[e] && ack[e - 2].id[d] >= i))
#else
#define ACKED(e, d, i) (ack[e].id[d] >= i)
#endif
#if IDS == 6
#define ACKS(e, i) ((BIT(set[e], 0) && ACKED(e, 0, i)) + (BIT(set[e], 1) && ACKED(e, 1, i)) + \
                    (BIT(set[e], 2) && ACKED(e, 2, i)) + (BIT(set[e], 3) && ACKED(e, 3, i)) + \
                    (BIT(set[e], 4) && ACKED(e, 4, i)) + (BIT(set[e], 5) && ACKED(e, 5, i)))
#else
#define ACKS(e, i) ((BIT(set[e], 0) && ACKED(e, 0, i)) + (BIT(set[e], 1) && ACKED(e, 1, i)) + \
                    (BIT(set[e], 2) && ACKED(e, 2, i)))
#endif

#ifdef MUTANT_S1_COMMIT
#define COMMITS_HELD(n) false
#else
#define COMMITS_HELD(n) held[n]
#endif
#ifdef MUTANT_L4_OLD
#define OWN_EPOCH(n, i) true
#else
#define OWN_EPOCH(n, i) (AT(memory[n], i) == leads[n])
#endif
#define MAY_COMMIT(n, i) (leads[n] && !COMMITS_HELD(n) && commit[leads[n]] < i && LENGTH(memory[n]) >= i && \
                          OWN_EPOCH(n, i) && ACKS(leads[n], i) >= Q(set[leads[n]]))
inline commit_declare(n, i) {
    SAY("node %d commits in epoch %d up to %d\n", n, leads[n], i);
    /* I3: what was committed stays, and every later primary has what is committed now. */
    if
    :: i <= LENGTH(committed) -> assert(PREFIX(committed, i) == PREFIX(memory[n], i))
    :: else ->
        assert(PREFIX(memory[n], LENGTH(committed)) == committed);
        committed = PREFIX(memory[n], i)
    fi;
    a = 0;
    count = 0;
    do
    :: a < NODES ->
        assert(leads[a] <= leads[n] || PREFIX(memory[a], i) == PREFIX(memory[n], i));
        count = count + (BIT(set[leads[n]], ID(a)) && PREFIX(disk[a], i) == PREFIX(memory[n], i));
        a++
    :: else -> break
    od;
#ifndef WIPES
    assert(count >= SIZE(set[leads[n]]) / 2 + 1); /* I4 */
#endif
    count = 0;
    commit[leads[n]] = i;
    if
    :: AT(memory[n], i) == leads[n] -> recovered[n] = 0; unopened[n] = 0
    :: else -> skip
    fi;
    forget()
}

/* R1: n would answer a linearizable read now if q members confirmed. */
#ifdef MUTANT_R1_UNCONFIRMED
#define CONFIRMED(e) Q(set[e])
#else
#ifdef MUTANT_R1_OLD_ROUND
#define CONFIRMS(e, n) (BIT(set[e], ID(n)) && (promise[n] == e || ack[e].id[ID(n)] || answer[e].id[ID(n)]))
#else
#define CONFIRMS(e, n) (BIT(set[e], ID(n)) && promise[n] == e)
#endif
#define CONFIRMED(e) (CONFIRMS(e, 0) + CONFIRMS(e, 1) + CONFIRMS(e, 2))
#endif
#ifdef MUTANT_S1_READ
#define READS_HELD(n) false
#else
#define READS_HELD(n) held[n]
#endif
#ifdef MUTANT_T5_READ
#define OPENED(n) true
#else
#define OPENED(n) (!unopened[n])
#endif
#define CAN_READ(n) (leads[n] && OPENED(n) && !READS_HELD(n) && CONFIRMED(leads[n]) >= Q(set[leads[n]]))

/* ---- Takeover --------------------------------------------------------------------------------------------------------- */

#ifdef ALIKE /* nodes 1 and 2 are, until one of them registers an epoch; let that be node 1 */
#define MAY_BE_FIRST(n) (n != 2 || alike_no_more)
#else
#define MAY_BE_FIRST(n) true
#endif
#define MAY_SWAP(n) (epoch < EPOCHS && takeovers < TAKEOVERS && BIT(set[epoch], ID(n)) && leads[n] != epoch && \
                     (primary[epoch] != n || stale[epoch]) && MAY_BE_FIRST(n))

/* T1, T2, C3: n, a member, suspects whoever leads, and its swap is done, whenever it hears of that. */
inline takeover_swap(n) {
    SAY("node %d registers epoch %d, set %d\n", n, epoch + 1, set[epoch]);
    step_down(n);
    takeovers++;
    epoch++;
    primary[epoch] = n;
#ifdef ALIKE
    if
    :: n == 1 -> alike_no_more = 1
    :: else -> skip
    fi;
#endif
#ifdef MUTANT_C4_SWAP
    set[epoch] = 0;
    a = 0;
    do
    :: a < NODES ->
        set[epoch] = set[epoch] | ((BIT(set[epoch - 1], a) || BIT(set[epoch - 1], a + 3)) << ID(a));
        a++
    :: else -> break
    od;
    a = 0;
#else
    set[epoch] = set[epoch - 1];
#endif
    by_takeover[epoch] = 1;
    forget()
}

/* T3: n promises e, durably, then says what its durable log ends with; or it says so again. */
inline promise_give(n, e) {
    SAY("node %d promises epoch %d, disk %o\n", n, e, disk[n]);
#ifndef MUTANT_T3_SELF
    if
    :: leads[n] -> step_down(n)
    :: else -> skip
    fi;
#endif
#ifndef MUTANT_T3_LATE
    if
    :: checked_epoch[n] != e -> checked_epoch[n] = 0; checked[n] = 0
    :: else -> skip
    fi;
#endif
    if
    :: promise[n] < e ->
        promise[n] = e;
#ifndef MUTANT_T3_VOLATILE
        PROMISE_DURABLE(n)
#endif
    :: else -> skip
    fi;
#ifdef MUTANT_T2_EARLY
    if
    :: e > epoch -> set[e] = set[epoch]
    :: else -> skip
    fi;
#endif
    answer[e].id[ID(n)] = LAST(disk[n]);
    forget()
}

/* T4: n has answers of r members, takes the best log over, and appends its opening record (T5). `source` is the node that
 * has it: with its own, there are r answers that are not better. */
#define NOT_BETTER(e, d, source) (BIT(set[e], d) && answer[e].id[d] && answer[e].id[d] <= answer[e].id[ID(source)])
#if IDS == 6
#define ANSWERS(e, source) (NOT_BETTER(e, 0, source) + NOT_BETTER(e, 1, source) + NOT_BETTER(e, 2, source) + \
                            NOT_BETTER(e, 3, source) + NOT_BETTER(e, 4, source) + NOT_BETTER(e, 5, source))
#else
#define ANSWERS(e, source) (NOT_BETTER(e, 0, source) + NOT_BETTER(e, 1, source) + NOT_BETTER(e, 2, source))
#endif
#ifdef MUTANT_T4_RECHECK
#define SOURCE_GOOD(e, source) true
#else
#define SOURCE_GOOD(e, source) (promise[source] == e && LAST(disk[source]) == answer[e].id[ID(source)])
#endif
#ifdef MUTANT_T2_EARLY
#define MAY_LEAD(n, e)    ((e <= epoch && primary[e] == n && !stale[e] && by_takeover[e] && !leads[n]) || \
                           (e == epoch + 1 && BIT(set[epoch], ID(n)) && !leads[n] && !made[e]))
#else
#define MAY_LEAD(n, e)    (e <= epoch && primary[e] == n && !stale[e] && by_takeover[e] && !made[e])
#endif
#define MAY_TAKE_OVER(n, e, source) \
    (MAY_LEAD(n, e) && promise[n] == e && BIT(set[e], ID(source)) && answer[e].id[ID(source)] && \
     ANSWERS(e, source) >= R(set[e]) && SOURCE_GOOD(e, source))
inline take_over(n, e, source) {
    SAY("node %d takes over in epoch %d with the log of node %d\n", n, e, source);
    memory[n] = disk[source];
    assert(LAST_EPOCH(committed) > e || PREFIX(memory[n], LENGTH(committed)) == committed); /* I3 */
    checked[n] = 0;
    checked_epoch[n] = 0;
    leads[n] = e;
    recovered[n] = LENGTH(memory[n]);
    unopened[n] = 1;
    record_add(n, e);
    acknowledge(n);
    forget()
}

/* ---- Change of the set ------------------------------------------------------------------------------------------------ */

#ifdef MUTANT_S2_FLOOR
#define FLOOR(n) commit[leads[n]]
#else
#define FLOOR(n) (recovered[n] > commit[leads[n]] -> recovered[n] : commit[leads[n]])
#endif
#ifdef MUTANT_S2_UNCHECKED
#define HAS_FLOOR(n, d) true
#else
#ifdef MUTANT_S2_SELF
#define HAS_FLOOR(n, d) (d == ID(n) || ack[leads[n]].id[d] >= FLOOR(n))
#else
#define HAS_FLOOR(n, d) (ack[leads[n]].id[d] >= FLOOR(n))
#endif
#endif
#ifdef MUTANT_S3_LATE
#define OPENED_ENOUGH(n) (!unopened[n])
#else
#define OPENED_ENOUGH(n) true
#endif
#define WANTED(members, x) (BIT(members, x) << ID(x))
#define IDS_OF(members) (WANTED(members, 0) | WANTED(members, 1) | WANTED(members, 2))
#define MAY_ASK(n) (leads[n] && leads[n] == epoch && epoch < EPOCHS && changes < CHANGES && !held[n] && !swap[n])
#define MAY_CHANGE(n, members) \
    (leads[n] && OPENED_ENOUGH(n) && BIT(members, n) && IDS_OF(members) != set[epoch] && (!BIT(members, 0) || HAS_FLOOR(n, ID(0))) && \
     (!BIT(members, 1) || HAS_FLOOR(n, ID(1))) && (!BIT(members, 2) || HAS_FLOOR(n, ID(2))))
inline change_ask(n, members) { /* S1, S2 */
    SAY("node %d holds in epoch %d and asks for the set %d\n", n, leads[n], IDS_OF(members));
    held[n] = 1;
    swap[n] = IDS_OF(members)
}

/* The coordinator does it, n may not know it yet. */
inline change_swap(n) {
    SAY("node %d its change is registered: epoch %d, set %d\n", n, epoch + 1, swap[n]);
    epoch++;
    changes++;
    primary[epoch] = n;
#ifdef MUTANT_C4_SWAP
    set[epoch] = 0;
    a = 0;
    do
    :: a < NODES -> set[epoch] = set[epoch] | ((BIT(swap[n], a) || BIT(swap[n], a + 3)) << ID(a)); a++
    :: else -> break
    od;
    a = 0;
#else
    set[epoch] = swap[n];
#endif
    by_takeover[epoch] = 0;
    swap[n] = 0;
    forget()
}

#define MAY_GO_ON(n) (leads[n] && leads[n] < epoch && primary[leads[n] + 1] == n && !stale[leads[n] + 1] && \
                      !by_takeover[leads[n] + 1])
inline change_learn(n) { /* S3 */
    SAY("node %d goes on in epoch %d, log was %o\n", n, leads[n] + 1, memory[n]);
    commit[leads[n] + 1] = commit[leads[n]];
    leads[n]++;
    promise[n] = leads[n];
    PROMISE_DURABLE(n);
    held[n] = 0;
#ifdef MUTANT_S2_CHANGES
    recovered[n] = 0;
#endif
    record_add(n, leads[n]);
    acknowledge(n);
    forget()
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------------- */

inline crash(n) {
    SAY("node %d restarts with promise %d, disk %o\n", n, promise[n], disk[n]);
    crashes++;
    step_down(n);
    memory[n] = disk[n];
    checked[n] = 0;
    checked_epoch[n] = 0;
#ifdef VOLATILE_PROMISE
    promise[n] = promise_durable[n];
#endif
    a = 1;
    do
    :: a <= epoch ->
        if
        :: primary[a] == n -> stale[a] = 1
        :: else -> skip
        fi;
        a++
    :: else -> break
    od;
    forget()
}

/* D2: the directory is lost, and a new one made. */
inline wipe(n) {
    SAY("node %d comes back empty; it had promise %d, disk %o\n", n, promise[n], disk[n]);
    wipes++;
    disk[n] = 0;
    promise[n] = 0;
#ifndef MUTANT_C4_WIPED
    incarnation[n] = 1;
#endif
    crash(n)
}

/* C2, left out: a restarted primary goes on where it was. */
#define MAY_RESUME(n, e) (e <= epoch && primary[e] == n && stale[e] && promise[n] == e && !leads[n] && (made[e] || e == 1))
inline resume(n, e) {
    SAY("node %d leads epoch %d again, log %o\n", n, e, memory[n]);
    leads[n] = e;
    sent[e] = memory[n];
    acknowledge(n);
    forget()
}

#ifdef HEAL
/* ---- Healing: whatever has happened, the nodes of `alive` can go on by themselves, if r members are among them ---------- */

hidden byte x;
hidden byte y;
hidden byte place;
#define ALIVE_IN_SET(alive) ((BIT(alive, 0) && BIT(set[epoch], ID(0))) + (BIT(alive, 1) && BIT(set[epoch], ID(1))) + \
                             (BIT(alive, 2) && BIT(set[epoch], ID(2))))
#define MAY_HEAL(n, alive) (BIT(alive, n) && BIT(set[epoch], ID(n)) && ALIVE_IN_SET(alive) >= R(set[epoch]))

/* All that are alive get all records, onto their disks. */
inline follow(n, alive) {
    x = 0;
    do
    :: x < NODES && BIT(alive, x) ->
        place = 1;
        do
        :: x != n && place <= LENGTH(memory[n]) -> receive(x, epoch, place); place++
        :: else -> break
        od;
        do
        :: PREFIX(disk[x], LENGTH(memory[x])) != memory[x] -> write(x)
        :: else -> break
        od;
        x++
    :: x < NODES && !BIT(alive, x) -> x++
    :: else -> break
    od
}

inline heal(n, alive) {
    takeover_swap(n);
    x = 0;
    do
    :: x < NODES ->
        if
        :: BIT(alive, x) -> promise_give(x, epoch)
        :: else -> skip
        fi;
        x++
    :: else -> break
    od;
    y = 0;
    do
    :: y < NODES && !(BIT(alive, y) && MAY_TAKE_OVER(n, epoch, y)) -> y++
    :: else -> break
    od;
    assert(y < NODES);
    take_over(n, epoch, y);
    follow(n, alive);
    if
    :: ALIVE_IN_SET(alive) < Q(set[epoch]) ->
        assert(MAY_CHANGE(n, alive));
        change_ask(n, alive);
        change_swap(n);
        change_learn(n);
        follow(n, alive)
    :: else -> skip
    fi;
    y = LENGTH(memory[n]);
    assert(MAY_COMMIT(n, y));
    commit_declare(n, y);
    assert(CAN_READ(n) && y >= LENGTH(committed));
    /* that was it: one state, in which nothing more happens */
    x = 0;
    do
    :: x < NODES -> step_down(x); memory[x] = 0; disk[x] = 0; promise[x] = EPOCHS + 3; checked[x] = 0; checked_epoch[x] = 0; x++
    :: else -> break
    od;
    forget();
    epoch = EPOCHS;
    committed = 0;
    takeovers = TAKEOVERS;
    crashes = CRASHES;
    clients = CLIENTS;
    changes = CHANGES
}
#endif

/* ---- The steps -------------------------------------------------------------------------------------------------------- */

#ifdef MUTANT_T2_EARLY
#define ASKED(e) (e <= epoch + 1 && e <= EPOCHS)
#else
#define ASKED(e) (e <= epoch && by_takeover[e])
#endif
#define MAY_PROMISE(n, e) \
    (ASKED(e) && (promise[n] < e || (promise[n] == e && !stale[e] && !made[e] && !leads[n] && \
                                     answer[e].id[ID(n)] != LAST(disk[n]))))

/* Any of the epochs (indexes) that CAN(n, .) is true for, in `x`; `SOME` asks whether there is one. What is chosen so is part of
 * the step that follows. */
#if EPOCHS == 3
#define SOME_EPOCH(CAN, n) (CAN(n, 1) || CAN(n, 2) || CAN(n, 3))
#define CHOOSE_EPOCH(CAN, n) if :: CAN(n, 1) -> e = 1 :: CAN(n, 2) -> e = 2 :: CAN(n, 3) -> e = 3 fi
#endif
#if EPOCHS == 4
#define SOME_EPOCH(CAN, n) (CAN(n, 1) || CAN(n, 2) || CAN(n, 3) || CAN(n, 4))
#define CHOOSE_EPOCH(CAN, n) if :: CAN(n, 1) -> e = 1 :: CAN(n, 2) -> e = 2 :: CAN(n, 3) -> e = 3 :: CAN(n, 4) -> e = 4 fi
#endif
#if EPOCHS == 5
#define SOME_EPOCH(CAN, n) (CAN(n, 1) || CAN(n, 2) || CAN(n, 3) || CAN(n, 4) || CAN(n, 5))
#define CHOOSE_EPOCH(CAN, n) \
    if :: CAN(n, 1) -> e = 1 :: CAN(n, 2) -> e = 2 :: CAN(n, 3) -> e = 3 :: CAN(n, 4) -> e = 4 :: CAN(n, 5) -> e = 5 fi
#endif
#define SOME_INDEX(CAN, x) (CAN(x, 1) || CAN(x, 2) || CAN(x, 3) || CAN(x, 4) || CAN(x, 5))
#define CHOOSE_INDEX(CAN, x) \
    if :: CAN(x, 1) -> i = 1 :: CAN(x, 2) -> i = 2 :: CAN(x, 3) -> i = 3 :: CAN(x, 4) -> i = 4 :: CAN(x, 5) -> i = 5 fi
#define MAY_ARRIVE(n, e)  (e <= epoch && primary[e] != n && sent[e] && MAY_RECEIVE(n, e))
#define IS_SENT(e, i)     (LENGTH(sent[e]) >= i)

proctype node(byte n) {
    byte e, i;
end:
    do
    :: atomic {
        SOME_EPOCH(MAY_ARRIVE, n) ->
        CHOOSE_EPOCH(MAY_ARRIVE, n);
        CHOOSE_INDEX(IS_SENT, e);
        d_step { receive(n, e, i); e = 0; i = 0 }
    }
    :: atomic {
        SOME_EPOCH(MAY_PROMISE, n) ->
        CHOOSE_EPOCH(MAY_PROMISE, n);
        d_step { promise_give(n, e); e = 0 }
    }
    :: d_step { MAY_TAKE_OVER(n, promise[n], 0) -> take_over(n, promise[n], 0) }
    :: d_step { MAY_TAKE_OVER(n, promise[n], 1) -> take_over(n, promise[n], 1) }
    :: d_step { MAY_TAKE_OVER(n, promise[n], 2) -> take_over(n, promise[n], 2) }
    :: atomic {
        SOME_INDEX(MAY_COMMIT, n) ->
        CHOOSE_INDEX(MAY_COMMIT, n);
        d_step { commit_declare(n, i); i = 0 }
    }
    :: d_step { PREFIX(disk[n], LENGTH(memory[n])) != memory[n] -> write(n) }
    :: d_step { leads[n] && !unopened[n] && clients < CLIENTS && leads[n] <= CLIENT_EPOCHS -> client_append(n) }
    :: d_step { MAY_SWAP(n) -> takeover_swap(n) }
    :: d_step { crashes < CRASHES -> crash(n) }
#if CHANGES > 0
    :: atomic {
        MAY_ASK(n) && (MAY_CHANGE(n, 1) || MAY_CHANGE(n, 2) || MAY_CHANGE(n, 3) || MAY_CHANGE(n, 4) || MAY_CHANGE(n, 5) ||
                       MAY_CHANGE(n, 6) || MAY_CHANGE(n, 7)) ->
        if
        :: MAY_CHANGE(n, 1) -> i = 1
        :: MAY_CHANGE(n, 2) -> i = 2
        :: MAY_CHANGE(n, 3) -> i = 3
        :: MAY_CHANGE(n, 4) -> i = 4
        :: MAY_CHANGE(n, 5) -> i = 5
        :: MAY_CHANGE(n, 6) -> i = 6
        :: MAY_CHANGE(n, 7) -> i = 7
        fi;
        d_step { change_ask(n, i); i = 0 }
    }
    :: d_step { swap[n] && epoch < EPOCHS && leads[n] == epoch -> change_swap(n) }
    :: d_step { MAY_GO_ON(n) -> change_learn(n) }
#ifdef MUTANT_C3_GIVE_UP
    :: d_step { held[n] && swap[n] -> held[n] = 0 }
#endif
#endif
#ifdef WIPES
    :: d_step { wipes < WIPES && crashes < CRASHES && incarnation[n] == 0 -> wipe(n) }
#endif
#ifdef MUTANT_C2_RESUME
    :: atomic {
        SOME_EPOCH(MAY_RESUME, n) ->
        CHOOSE_EPOCH(MAY_RESUME, n);
        d_step { resume(n, e); e = 0 }
    }
#endif
#ifdef HEAL
    :: atomic {
        epoch && (MAY_HEAL(n, 1) || MAY_HEAL(n, 2) || MAY_HEAL(n, 3) || MAY_HEAL(n, 4) || MAY_HEAL(n, 5) || MAY_HEAL(n, 6) ||
                  MAY_HEAL(n, 7)) ->
        if
        :: MAY_HEAL(n, 1) -> i = 1
        :: MAY_HEAL(n, 2) -> i = 2
        :: MAY_HEAL(n, 3) -> i = 3
        :: MAY_HEAL(n, 4) -> i = 4
        :: MAY_HEAL(n, 5) -> i = 5
        :: MAY_HEAL(n, 6) -> i = 6
        :: MAY_HEAL(n, 7) -> i = 7
        fi;
        d_step { heal(n, i); i = 0 }
    }
#endif
    :: d_step { CAN_READ(n) && commit[leads[n]] < LENGTH(committed) -> assert(false) } /* I5 */
    od
}

init {
    d_step {
        set[1] = SET;
        promise[0] = 1;
        promise[1] = 1;
        promise[2] = 1;
#ifdef VOLATILE_PROMISE
        promise_durable[0] = 1;
        promise_durable[1] = 1;
        promise_durable[2] = 1;
#endif
#ifdef TAKEN_OVER
        /* A later beginning, for an error that takes many epochs: node 0 has committed a record with node 1, and node 1 has just
         * taken over. */
        epoch = 2;
        takeovers = 1;
        clients = 1;
        primary[2] = 1;
        set[2] = SET;
        by_takeover[2] = 1;
        promise[0] = 2;
        promise[1] = 2;
        disk[0] = 1;
        memory[0] = 1;
        disk[1] = 1;
        committed = 1;
        leads[1] = 2;
        recovered[1] = 1;
        unopened[1] = 1;
        memory[1] = 1;
        record_add(1, 2);
        acknowledge(1)
#else
        leads[0] = 1
#endif
    }
    atomic {
        run node(0);
        run node(1);
        run node(2)
    }
}
