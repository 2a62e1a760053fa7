/**
 * What charon's log says of a negotiation that failed, in sentences for who is woken by it: what happened, which side
 * refused, what to do. charon names a cause in one line and the end of the attempt in a later one; here an attempt that
 * failed is one failure, at the line that ends it.
 *
 * Texts of strongSwan 5.9.8 (Debian 12) and 6.0.1 (Debian 13), level 1, which is all that VICI's event `log` has. Only texts
 * that are known become words; of what a line holds, only identities, addresses, ranges and algorithms are repeated.
 */

export type Reason =
  | 'address'
  | 'authentication'
  | 'certificate'
  | 'dns'
  | 'identity'
  | 'kernel'
  | 'key'
  | 'other'
  | 'ppk'
  | 'proposal'
  | 'selectors'
  | 'timeout'
  | 'unreachable';

export interface Failure {
  readonly reason: Reason;
  /** Who refused; where nobody did, with whom to begin. */
  readonly side: 'ours' | 'theirs';
  readonly message: string;
}

/** One VICI event `log`. `ike`: its ikesa-name, which is `(unnamed)` until a gateway that dials us has said who it is. */
export interface LogRecord {
  readonly group: string;
  readonly msg: string;
  readonly ike?: string;
}

/** What earlier lines said of an attempt. */
interface Attempt {
  /** Of a refusal that a later line reports. */
  cause?: Failure;
  received?: string;
  configured?: string;
  /** The peer that dials us, and the identities that it asks for. */
  lookup?: { theirs: string; ours: string; address: string };
  /** Who the peer has proved to be. */
  authenticated?: string;
  /** Who we said that we are. */
  ourId?: string;
  /** The kernel's last error. */
  kernel?: string;
  messageId?: string;
  established?: boolean;
  hasChild?: boolean;
  /** Failed already, so that the line which only sums up says nothing new. */
  reported?: boolean;
}

/** What charon says outside any IKE_SA about something that one needs. */
interface Surroundings {
  resolver?: string;
  writeError?: string;
}

type Groups = readonly string[];
type Say = (groups: Groups, attempt: Attempt, around: Surroundings) => Failure | undefined;
type Rule = readonly [text: RegExp, say: Say];

/** Longer lines have nothing that is read here. */
const LINE_LENGTH = 4096;
/** Of what is repeated: an identity comes from whoever dials us. */
const WORD_LENGTH = 120;
const LIST_LENGTH = 400;
/** A connection has one name, so this is never reached. */
const MAX_ATTEMPTS = 100;

export class FailureReader {
  readonly #attempts = new Map<string, Attempt>();
  readonly #around: Surroundings = {};

  /** The failure that this record completes. Never throws, whatever it holds. */
  read({ msg, ike = '' }: LogRecord): Failure | undefined {
    const line = msg.slice(0, LINE_LENGTH).trim();
    const attempt = this.#attempt(ike);
    for (const [text, say] of RULES) {
      const found = text.exec(line);
      if (found === null) continue;
      const failure = say(found.slice(1), attempt, this.#around);
      if (failure !== undefined) Object.assign(attempt, { reported: say !== atTheEnd, cause: undefined });
      return failure;
    }
    return undefined;
  }

  #attempt(ike: string): Attempt {
    const known = this.#attempts.get(ike);
    if (known !== undefined) return known;
    if (this.#attempts.size >= MAX_ATTEMPTS) this.#attempts.clear();
    const attempt: Attempt = {};
    this.#attempts.set(ike, attempt);
    return attempt;
  }
}

const ours = (reason: Reason, message: string): Failure => ({ reason, side: 'ours', message });
const theirs = (reason: Reason, message: string): Failure => ({ reason, side: 'theirs', message });

/** A line that only prepares another. */
const note =
  (change: (attempt: Attempt, groups: Groups, around: Surroundings) => void): Say =>
  (groups, attempt, around) => {
    change(attempt, groups, around);
    return undefined;
  };
const because = (cause: (groups: Groups, attempt: Attempt) => Failure): Say =>
  note((attempt, groups) => (attempt.cause ??= cause(groups, attempt)));

/** As it may be shown: short, on one line. */
function shown(text: string | undefined, length = WORD_LENGTH): string {
  const plain = (text ?? '').replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '?');
  return plain.length > length ? `${plain.slice(0, length)}…` : plain;
}
const quoted = (text: string | undefined): string => `'${shown(text)}'`;

// Beginnings and ends; src/libcharon/sa/ikev2/tasks/ike_init.c, ike_auth.c, child_create.c, src/libcharon/sa/ike_sa.c
const COURSE: readonly Rule[] = [
  [/^(?:initiating IKE_SA |\S+ is initiating an IKE_SA)/, note(restart)],
  [
    /^authentication of '(.*)' \(myself\)/,
    note((attempt, [id]) => {
      if (id !== undefined) attempt.ourId = id;
    }),
  ],
  [
    /^authentication of '(.*)' with .* successful$/,
    note((attempt, [id]) => {
      if (id !== undefined) attempt.authenticated = id;
    }),
  ],
  [
    /^IKE_SA .* established between /,
    note((attempt, _, around) => {
      Object.assign(attempt, { established: true, reported: false, cause: undefined });
      delete around.writeError;
    }),
  ],
  [
    /^(?:inbound |outbound )?CHILD_SA .* established with SPIs /,
    note((attempt) => Object.assign(attempt, { hasChild: true, reported: false })),
  ],
  [/^IKE_SA deleted$/, note((attempt) => Object.assign(restart(attempt), { established: false, hasChild: false }))],
  [
    /^retransmit \d+ of request with message ID (\d+)/,
    note((attempt, [id], around) => {
      if (id !== undefined) attempt.messageId = id;
      // Whether the last packet left is what counts.
      delete around.writeError;
    }),
  ],
  [/^failed to establish CHILD_SA, keeping IKE_SA$/, atTheEnd],
];

function restart(attempt: Attempt): Attempt {
  const { established, hasChild } = attempt;
  for (const key of Object.keys(attempt)) delete attempt[key as keyof Attempt];
  return Object.assign(attempt, { established, hasChild });
}

/** Where the cause has not been understood there is at least this. */
function atTheEnd(_: Groups, attempt: Attempt): Failure | undefined {
  const { reported } = attempt;
  attempt.reported = false;
  if (reported === true) return undefined;
  return ours(
    'other',
    "The gateway is known and the IKE_SA stands, but no CHILD_SA came about: charon's log has the cause.",
  );
}

// src/libstrongswan/crypto/proposal/proposal.c, src/libcharon/sa/ikev2/tasks/ike_init.c, child_create.c
const PROPOSALS: readonly Rule[] = [
  [
    /^received proposals: (.*)$/,
    note((attempt, [list]) => {
      if (list !== undefined) attempt.received = list;
    }),
  ],
  [
    /^configured proposals: (.*)$/,
    note((attempt, [list]) => {
      if (list !== undefined) attempt.configured = list;
    }),
  ],
  [/^received proposals unacceptable$/, (_, attempt) => mismatch('ike', attempt)],
  // Also the end of an IKE_SA_INIT whose key exchange is in no proposal.
  [
    /^no acceptable proposal found$/,
    (_, attempt) => mismatch(attempt.received?.startsWith('IKE:') ? 'ike' : 'esp', attempt),
  ],
  [
    /^received NO_PROPOSAL_CHOSEN notify error$/,
    () =>
      theirs(
        'proposal',
        "The gateway refused the IKE_SA (NO_PROPOSAL_CHOSEN): none of ipsec.proposals.ike is configured there, or it has no IKEv2 connection for the address that it sees us by. Compare the gateway's phase 1 and the remote address of its connection; its log says which.",
      ),
  ],
  [
    /^received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built$/,
    (_, attempt) =>
      theirs(
        'proposal',
        `The gateway refused the CHILD_SA (NO_PROPOSAL_CHOSEN): none of ipsec.proposals.esp is configured there. Compare its phase 2${pfsHint(attempt)}.`,
      ),
  ],
  [
    /^requested (?:DH group|key exchange method) (\S+) not contained in any of our proposals$/,
    ([group]) =>
      ours(
        'proposal',
        `The gateway asks for the key exchange ${shown(group)}, which is in none of our proposals: add it to ipsec.proposals, or take it out of the gateway's.`,
      ),
  ],
  [
    /^already retried with (?:DH group|key exchange method) \S+, ignore requested (\S+)$/,
    ([group]) =>
      theirs(
        'proposal',
        `The gateway keeps asking for another key exchange, last for ${shown(group)}: name one group on both sides.`,
      ),
  ],
  [
    /^giving up after \d+ retries$/,
    () =>
      theirs(
        'proposal',
        'The gateway asked for another key exchange or a cookie again and again: name one group on both sides.',
      ),
  ],
  [
    /^peer(?:'?s)? (?:proposal|DH group|key exchange method) selection invalid$/,
    () =>
      ours(
        'proposal',
        'The gateway chose a proposal that we did not offer. We refused. Name exactly one on both sides, and look for an update of the gateway.',
      ),
  ],
];

function mismatch(kind: 'ike' | 'esp', attempt: Attempt): Failure {
  const { received, configured } = attempt;
  delete attempt.received;
  delete attempt.configured;
  const what =
    received === undefined || configured === undefined
      ? 'The gateway offers no proposal that we have'
      : `The gateway offers ${shown(received, LIST_LENGTH)}; we have ${shown(configured, LIST_LENGTH)}: no proposal is on both sides`;
  const hint = kind === 'esp' ? pfsHint(attempt) : '';
  return ours(
    'proposal',
    `${what}. We refused. Make ipsec.proposals.${kind} and the gateway's phase ${kind === 'ike' ? 1 : 2} agree${hint}.`,
  );
}

/** RFC 7296, 1.2: an IKE_SA's first CHILD_SA has no key exchange of its own. */
const pfsHint = ({ hasChild }: Attempt): string =>
  hasChild === true
    ? ', the PFS group above all: it counts from the second CHILD_SA or the first rekey on, so the tunnel stands now and would end with its lifetime'
    : '';

// src/libcharon/sa/ikev2/authenticators/psk_authenticator.c, pubkey_authenticator.c, src/libcharon/sa/ikev2/tasks/ike_auth.c
const AUTHENTICATION: readonly Rule[] = [
  [
    /^tried \d+ shared keys? for '(.*)' - '(.*)', but MAC mismatched$/,
    ([own, other]) =>
      ours(
        'authentication',
        `The gateway ${quoted(other)} proved another pre-shared key than ours (we are ${quoted(own)}), or another PPK. We refused. Set the same key on both sides; watch for a line break or spaces at its end.`,
      ),
  ],
  [
    /^received AUTHENTICATION_FAILED notify error$/,
    (_, { ourId }) =>
      theirs(
        'authentication',
        `The gateway refused us${ourId === undefined ? '' : ` as ${quoted(ourId)}`} (AUTHENTICATION_FAILED) and does not say why. Compare there the pre-shared key or certificate, its remote identity with our ipsec.localID, its own with ipsec.remoteID, and the PPK if there is one; its log says which.`,
      ),
  ],
  // As the one that dials, the gateway tells us so afterwards (RFC 7296, 2.21.2).
  [
    /^parsed INFORMATIONAL request \d+ \[.*N\(AUTH_FAILED\)/,
    (_, { ourId }) =>
      theirs(
        'authentication',
        `The gateway dialled and then refused our side${ourId === undefined ? '' : `, ${quoted(ourId)}`} (AUTHENTICATION_FAILED). Compare there its remote identity with our ipsec.localID, and our certificate or pre-shared key; its log says which.`,
      ),
  ],
  [
    /^no shared key found for '(.*)' - '(.*)'$/,
    ([own, other]) =>
      ours(
        'key',
        `No pre-shared key is loaded for us, ${quoted(own)}, and the gateway, ${quoted(other)}. Check the Secret of ipsec.pskSecretRef, and that ipsec.localID and ipsec.remoteID are these.`,
      ),
  ],
  [
    /^no private key found for '(.*)'$/,
    ([own]) =>
      ours(
        'key',
        `No private key is loaded for the certificate of ${quoted(own)}. Check tls.key in the Secret of ipsec.certificate.secretRef: it has to belong to tls.crt.`,
      ),
  ],
  [
    /^signature validation failed, looking for another key$/,
    () =>
      ours(
        'authentication',
        "The gateway's signature does not fit its certificate. We refused. Its private key belongs to another certificate: load both anew there.",
      ),
  ],
  [
    /^constraint requires (.+) authentication, but (.+) was used$/,
    because(([wanted, used]) =>
      ours(
        'authentication',
        `The gateway authenticates by ${shown(used)}, we require ${shown(wanted)}. We refused. Use the same on both sides: ipsec.pskSecretRef or ipsec.certificate.`,
      ),
    ),
  ],
  [
    /^canceling IKE_SA setup due to uniqueness policy$/,
    () =>
      ours(
        'other',
        'The gateway dialled although an IKE_SA with it stands. We refused the second one; that one carries the traffic.',
      ),
  ],
  [
    /^no alternative config found$/,
    (_, { cause }) =>
      cause ??
      ours(
        'other',
        'The gateway proved who it is but meets no connection of ours. We refused. Compare ipsec.remoteID and how it authenticates.',
      ),
  ],
];

// src/libcharon/sa/ikev2/tasks/ike_auth.c, src/libstrongswan/credentials/auth_cfg.c, src/libcharon/sa/ikev1/tasks/main_mode.c
const IDENTITIES: readonly Rule[] = [
  [
    /^looking for peer configs matching (\S+?)\[(.*)\]\.\.\.([^[\]\s]+)\[(.*)\]$/,
    note((attempt, [, own = '', address = '', other = '']) => {
      attempt.lookup = { ours: own, theirs: other, address };
    }),
  ],
  [
    /^no matching peer config found$/,
    (_, { lookup }) =>
      ours(
        'identity',
        `${lookup === undefined ? 'A gateway dialled' : `The gateway at ${shown(lookup.address)} calls itself ${quoted(lookup.theirs)} and us ${quoted(lookup.ours)}`}, which no connection of ours has. We refused. Set ipsec.remoteID to what it calls itself and ipsec.localID to what it calls us, or change them there.`,
      ),
  ],
  // 6.0.1 puts the identities' types behind them, and goes on.
  [
    /^constraint check failed: (?:EAP )?identity '(.*?)'(?: \(.*)? required/,
    because(([wanted], { authenticated }) => wrongIdentity(wanted, authenticated)),
  ],
  [
    /^constraint check failed: certificate does not confirm identity '(.*)' \(/,
    because(([id]) =>
      ours(
        'identity',
        `The gateway's certificate does not hold its identity ${quoted(id)}. We refused. Issue one with it as subjectAltName, or set ipsec.remoteID to a name that it has.`,
      ),
    ),
  ],
  [
    /^received IDr (.+), but require (.+)$/,
    ([asked, own]) =>
      ours(
        'identity',
        `The gateway wants to talk to ${quoted(asked)}, and we are ${quoted(own)}. We refused. Set ipsec.localID and the gateway's remote identity to the same.`,
      ),
  ],
  [/^IDir '(.*)' does not match to '(.*)'$/, ([found, wanted]) => wrongIdentity(wanted, found)],
];

const wrongIdentity = (wanted: string | undefined, found: string | undefined): Failure =>
  ours(
    'identity',
    `The gateway is ${found === undefined ? 'somebody else' : quoted(found)}, we expect ${quoted(wanted)}. We refused. Set ipsec.remoteID to the identity that the gateway has, or change it there.`,
  );

// src/libstrongswan/credentials/credential_manager.c, auth_cfg.c, src/libstrongswan/plugins/revocation/revocation_validator.c,
// src/libstrongswan/plugins/constraints/constraints_validator.c, src/libcharon/sa/ikev2/authenticators/pubkey_authenticator.c
const CERTIFICATES: readonly Rule[] = [
  [
    /^(subject|issuer) certificate invalid \(valid from (.+) to (.+)\)$/,
    because(([label, from, to]) =>
      ours(
        'certificate',
        `The certificate of the gateway${label === 'issuer' ? "'s issuer" : ''} is valid from ${shown(from)} to ${shown(to)}, not now. We refused. Renew it; if it looks right, check the clocks of both sides.`,
      ),
    ),
  ],
  [
    /^certificate was revoked on (.+), reason: (.+)$/,
    because(([when, why]) =>
      ours(
        'certificate',
        `The gateway's certificate was revoked on ${shown(when)} (${shown(why)}). We refused. Issue another one for it.`,
      ),
    ),
  ],
  [
    /^no issuer certificate found for "(.*)"$/,
    because(([subject]) =>
      ours(
        'certificate',
        `The gateway's certificate ${quoted(subject)} was issued by a CA that we do not have. We refused. Put this CA into ca.crt of the Secret, or have the gateway send its intermediate certificates.`,
      ),
    ),
  ],
  [
    /^self-signed certificate "(.*)" is not trusted$/,
    because(([subject]) =>
      ours(
        'certificate',
        `The gateway's chain ends in ${quoted(subject)}, which is not in ca.crt of the Secret. We refused. Add it there, or issue the gateway a certificate of our CA.`,
      ),
    ),
  ],
  [
    /^rejecting certificate without digitalSignature or nonRepudiation keyUsage flags$/,
    because(() =>
      ours(
        'certificate',
        "The gateway's certificate may not sign (keyUsage without digitalSignature). We refused. Issue one that may.",
      ),
    ),
  ],
  [
    /^(?:maximum path length of \d+ exceeded|path length of -?\d+ violates constraint of \d+)$/,
    because(() =>
      ours(
        'certificate',
        "The gateway's chain of certificates is longer than its CAs allow. We refused. Issue it a certificate nearer to the root.",
      ),
    ),
  ],
  [
    /^no trusted (\S+) public key found for '(.*)'$/,
    ([, id], { cause }) =>
      cause ??
      ours(
        'certificate',
        `The gateway has no certificate for ${quoted(id)} that we trust. We refused. It needs one that names this identity as subjectAltName, of a CA in ca.crt of the Secret; or set ipsec.remoteID to a name that it has.`,
      ),
  ],
  [
    /^constraint check failed: peer not authenticated by CA '(.*)'$/,
    because(([ca]) =>
      ours(
        'certificate',
        `The gateway's certificate is not of the CA ${quoted(ca)} that its connection requires. We refused. Issue it one of this CA.`,
      ),
    ),
  ],
  [
    /^constraint check failed: RULE_\w+ is \w+, but requires at least \w+$/,
    because(() =>
      ours(
        'certificate',
        "Whether the gateway's certificate is revoked could not be found out, and has to be. We refused. Check that the CRL or OCSP server can be reached from the pod.",
      ),
    ),
  ],
];

// src/libcharon/sa/ikev2/tasks/ike_auth.c. "no PPK for … found, ignored" and "peer didn't use PPK" go on without.
const PPKS: readonly Rule[] = [
  [
    /^PPK required but peer does not support PPK$/,
    () =>
      ours(
        'ppk',
        'The gateway offers no PPK (RFC 8784) and we require one. We refused. Set it up there (key loaded, id), or ipsec.ppkSecretRef.required to false.',
      ),
  ],
  [
    /^PPK required but no PPK found for '(.*)'$/,
    ([id]) =>
      ours(
        'ppk',
        `No PPK is loaded for the id ${quoted(id)}. Check the Secret of ipsec.ppkSecretRef, and its id against the gateway's.`,
      ),
  ],
  [
    /^PPK required but no PPK_(?:ID configured|IDENTITY received)$/,
    () =>
      ours(
        'ppk',
        'A PPK is required and the gateway names none. We refused. Set the same PPK id on both sides (ipsec.ppkSecretRef.id).',
      ),
  ],
  [
    /^received PPK_ID '(.*)', but require '(.*)'$/,
    ([received, wanted]) =>
      ours(
        'ppk',
        `The gateway uses the PPK ${quoted(received)}, we require ${quoted(wanted)}. We refused. Set the same PPK id on both sides (ipsec.ppkSecretRef.id).`,
      ),
  ],
];

// src/libcharon/sa/ikev2/tasks/child_create.c
const SELECTORS: readonly Rule[] = [
  [
    /^traffic selectors (.*) === (.*) unacceptable$/,
    ([own, other]) =>
      ours(
        'selectors',
        `The gateway asks for ${shown(own, LIST_LENGTH)} on our side and ${shown(other, LIST_LENGTH)} on its own, which are not our ranges. We refused. Compare its networks with podCIDR, serviceCIDR or ipsec.localTrafficSelectors (ours) and peerCIDRs (its own).`,
      ),
  ],
  [
    /^received TS_UNACCEPTABLE notify, no CHILD_SA built$/,
    () =>
      theirs(
        'selectors',
        'The gateway refused our ranges (TS_UNACCEPTABLE). Compare there its local networks with peerCIDRs, and its remote ones with podCIDR, serviceCIDR or ipsec.localTrafficSelectors; a gateway that takes one pair of ranges a tunnel needs ipsec.childSAs: perPair.',
      ),
  ],
  [
    /^no acceptable traffic selectors found$/,
    () =>
      ours(
        'selectors',
        'The gateway answered with ranges that we did not ask for. We refused. Compare its networks with peerCIDRs, podCIDR and serviceCIDR.',
      ),
  ],
];

// src/libcharon/sa/ikev2/task_manager_v2.c, src/libcharon/plugins/socket_default/socket_default_socket.c,
// src/libstrongswan/networking/host_resolver.c, src/libcharon/sa/ike_sa.c, trap_manager.c, src/libcharon/network/receiver.c
const NETWORK: readonly Rule[] = [
  [/^giving up after (\d+) retransmits$/, gaveUp],
  [
    /^error writing to socket: ([A-Z][a-z ]+)$/,
    note((_, [error], around) => {
      if (error !== undefined) around.writeError = error;
    }),
  ],
  [
    /^resolving '.*' failed: (.*)$/,
    note((_, [error], around) => {
      if (error !== undefined) around.resolver = error;
    }),
  ],
  [
    /^unable to resolve (.+), (?:initiate aborted|retrying in \d+s)$/,
    ([name], _, around) => {
      const { resolver } = around;
      delete around.resolver;
      return ours(
        'dns',
        `The gateway's name ${quoted(name)} has no address${resolver === undefined ? '' : ` (${shown(resolver)})`}. Check ipsec.peer and the pod's DNS, or name an IP address there.`,
      );
    },
  ],
  [
    /^installing trap failed, remote address unknown/,
    () =>
      ours(
        'dns',
        "No policy waits for traffic, as the gateway's address is unknown. Check ipsec.peer and the pod's DNS; for a gateway that dials us set ipsec.startAction to none.",
      ),
  ],
  [
    /^no IKE config found for (\S+)\.\.\.(\S+), sending NO_PROPOSAL_CHOSEN$/,
    ([, address]) =>
      ours(
        'address',
        `${shown(address)} dialled us, and no connection of ours is for this address or its version of IKE. We refused. If it is the gateway, behind NAT perhaps, set ipsec.peer to this address and its side to IKEv2; otherwise it is a scanner and harmless.`,
      ),
  ],
  [
    /^ignoring IKE_SA setup from (\S+), (?:per-IP half-open|half-open|job load)/,
    ([address]) =>
      ours(
        'other',
        `Too many IKE_SAs are half open, so one that ${shown(address)} starts is ignored. If it is the gateway, it began again and again and never finished: its own log has the cause.`,
      ),
  ],
];

function gaveUp([count]: Groups, attempt: Attempt, around: Surroundings): Failure {
  const { established, messageId } = attempt;
  const { writeError } = around;
  delete around.writeError;
  Object.assign(restart(attempt), { established: false, hasChild: false });
  if (writeError !== undefined)
    return ours(
      'unreachable',
      `No packet to the gateway left the pod (${writeError}). Check the pod's route to ipsec.peer, network policies, and that the address family is one the pod has.`,
    );
  const tries = `after ${shown(count)} repetitions`;
  if (established === true)
    return theirs(
      'timeout',
      `The gateway does not answer any more, ${tries}; the tunnel has ended. Check the gateway, and UDP 500 and 4500 on the way.`,
    );
  if (messageId === '1')
    return theirs(
      'timeout',
      `The gateway answered the first message but not the second, ${tries}. Check that UDP 4500 goes through, and fragments, which certificates need; a gateway that refuses silently has the cause in its log.`,
    );
  return theirs(
    'timeout',
    `The gateway does not answer, ${tries}. Check ipsec.peer, that the gateway runs IKEv2 for our address, and UDP 500 and 4500 on the way.`,
  );
}

// src/libcharon/plugins/kernel_netlink/kernel_netlink_shared.c, kernel_netlink_ipsec.c, src/libcharon/sa/ikev2/tasks/child_create.c
const KERNEL: readonly Rule[] = [
  // 6.0.1 may put the kernel's own words between; a number always ends it.
  [
    /^received netlink error: ([A-Z][A-Za-z ]*?)(?: \((\d+)\)|:|$)/,
    note((attempt, [error]) => {
      if (error !== undefined) attempt.kernel = error;
    }),
  ],
  [
    /^unable to install (?:inbound |outbound |and )*IPsec SA \(SAD\) in kernel$/,
    (_, attempt) => refusedByKernel('the keys (ESP states)', attempt),
  ],
  [/^unable to install IPsec policies \(SPD\) in kernel$/, (_, attempt) => refusedByKernel('the policies', attempt)],
  [/^installing trap failed$/, (_, attempt) => refusedByKernel('the policies', attempt)],
  [/^unable to allocate SPIs? from kernel$/, (_, attempt) => refusedByKernel('an SPI', attempt)],
];

function refusedByKernel(what: string, attempt: Attempt): Failure {
  const { kernel } = attempt;
  delete attempt.kernel;
  return ours(
    'kernel',
    `The node's kernel did not take ${what}${kernel === undefined ? '' : ` (${kernel})`}. ${kernelCure(kernel)}`,
  );
}

function kernelCure(error: string | undefined): string {
  if (error === 'Operation not permitted') return "charon's container needs the capability NET_ADMIN.";
  if (error === 'File exists') return 'States or policies of an earlier charon are left: restart the pod.';
  return 'It needs CONFIG_XFRM_USER, CONFIG_INET_ESP and CONFIG_INET6_ESP (modules xfrm_user, esp4, esp6) and the algorithms of ipsec.proposals.esp: load them on the node, or keep frontends off it.';
}

// src/libcharon/sa/ikev2/tasks/ike_init.c, ike_auth.c, child_create.c: any other notify that is an error, by its name.
const REST: readonly Rule[] = [
  [
    /^received ([A-Z][A-Z_]{2,40}) notify error(?:, destroying IKE_SA)?$/,
    ([name]) => theirs('other', `The gateway refused with ${name}; its log says why.`),
  ],
  [
    /^received ([A-Z][A-Z_]{2,40}) notify, no CHILD_SA built$/,
    ([name]) => theirs('other', `The gateway refused the CHILD_SA with ${name}; its log says why.`),
  ],
];

/** The first that fits counts. */
const RULES: readonly Rule[] = [
  ...COURSE,
  ...PROPOSALS,
  ...AUTHENTICATION,
  ...IDENTITIES,
  ...CERTIFICATES,
  ...PPKS,
  ...SELECTORS,
  ...NETWORK,
  ...KERNEL,
  ...REST,
];
