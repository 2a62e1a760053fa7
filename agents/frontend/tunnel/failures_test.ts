/**
 * Records marked `seen` are verbatim of VICI's event `log`, of two charons of strongSwan 5.9.8 (Debian 12) that were given
 * configurations which do not fit, each as the one that dials and as the one that answers. `read`: after the source, which
 * each row names below src/.
 */
import test from 'ava';
import fc from 'fast-check';
import { cpuMs } from '../../../test/cpu-ms.ts';
import { FailureReader, type Failure, type LogRecord } from './failures.ts';

/** `GROUP ikesa-name msg`; `-` where the event has no ikesa-name. */
function record(line: string): LogRecord {
  const [, group = '', ike = '', msg = ''] = /^(\S+) (\S+) (.*)$/s.exec(line) ?? [];
  return { group, msg, ...(ike === '-' ? {} : { ike }) };
}

function failuresOf(lines: readonly string[], reader = new FailureReader()): Failure[] {
  return lines.map((line) => reader.read(record(line))).filter((failure) => failure !== undefined);
}

/** One failure, whose message has all of the words, at the last line. */
const fails = test.macro((tt, lines: string[], kind: string, ...words: string[]) => {
  const reader = new FailureReader();
  tt.deepEqual(failuresOf(lines.slice(0, -1), reader), []);
  const [failure, ...others] = failuresOf(lines.slice(-1), reader);
  tt.deepEqual(others, []);
  tt.is(`${failure?.reason} ${failure?.side}`, kind);
  for (const word of words) tt.true(failure?.message.includes(word), `${failure?.message} has no ${word}`);
});
const silent = test.macro((tt, lines: string[]) => tt.deepEqual(failuresOf(lines), []));

const AS_PSK = "IKE tunnel authentication of 'frontend' (myself) with pre-shared key";
const GATEWAY_PROVED = "IKE tunnel authentication of 'gateway' with pre-shared key successful";
const ESTABLISHED = 'IKE tunnel IKE_SA tunnel[9] established between 10.1.0.1[frontend]...10.1.0.2[gateway]';
const CHILD =
  'IKE tunnel CHILD_SA net{14} established with SPIs 77679d73_i 17ef217b_o and TS 10.10.0.0/16 === 192.168.50.0/24';
const KEEPING = 'IKE tunnel failed to establish CHILD_SA, keeping IKE_SA';
const SUBJECT_REFUSED = "IKE tunnel no trusted ECDSA public key found for 'gateway'";
const REFUSED_CONFIG = [
  "CFG tunnel selected peer config 'tunnel' unacceptable: constraint checking failed",
  'CFG tunnel no alternative config found',
];

// seen; libcharon/sa/ikev2/authenticators/psk_authenticator.c, libcharon/sa/ikev2/tasks/ike_auth.c
test(
  'wrong PSK, they dial',
  fails,
  [
    "CFG tunnel selected peer config 'tunnel'",
    "IKE tunnel tried 1 shared key for 'frontend' - 'gateway', but MAC mismatched",
  ],
  'authentication ours',
  "'gateway' proved another pre-shared key",
  "'frontend'",
  'Set the same key on both sides',
);
test(
  'wrong PSK, several keys',
  fails,
  ["IKE tunnel tried 2 shared keys for '%any' - '192.0.2.7', but MAC mismatched"],
  'authentication ours',
  "'192.0.2.7'",
);
test(
  'wrong PSK, we dial',
  fails,
  [
    'IKE tunnel initiating IKE_SA tunnel[2] to 10.1.0.2',
    AS_PSK,
    'IKE tunnel received AUTHENTICATION_FAILED notify error',
  ],
  'authentication theirs',
  "refused us as 'frontend'",
  'ipsec.localID',
);
test(
  'they dial and then refuse us',
  fails,
  [
    "IKE tunnel authentication of 'frontend' (myself) with pre-shared key",
    ESTABLISHED,
    CHILD,
    'ENC tunnel parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]',
  ],
  'authentication theirs',
  "refused our side, 'frontend'",
);
test(
  'no PSK loaded',
  fails,
  [AS_PSK, "IKE tunnel no shared key found for 'frontend' - 'gateway'"],
  'key ours',
  'ipsec.pskSecretRef',
  "'frontend'",
  "'gateway'",
);
// seen; libcharon/sa/ikev2/authenticators/pubkey_authenticator.c
test(
  'no private key loaded',
  fails,
  ["IKE tunnel no private key found for 'frontend'"],
  'key ours',
  'tls.key',
  "'frontend'",
);
// seen; libstrongswan/credentials/auth_cfg.c, libcharon/sa/ikev2/tasks/ike_auth.c
test(
  'a PSK in place of a certificate',
  fails,
  [
    GATEWAY_PROVED,
    'CFG tunnel constraint requires public key authentication, but pre-shared key was used',
    ...REFUSED_CONFIG,
  ],
  'authentication ours',
  'authenticates by pre-shared key, we require public key',
);
// read; libcharon/sa/ikev2/authenticators/pubkey_authenticator.c
test(
  'a key of another certificate',
  fails,
  ['IKE tunnel signature validation failed, looking for another key'],
  'authentication ours',
  'does not fit its certificate',
);

// seen; libcharon/sa/ikev2/tasks/ike_auth.c, libstrongswan/credentials/auth_cfg.c
test(
  'unknown identity',
  fails,
  [
    'CFG (unnamed) looking for peer configs matching 10.1.0.2[gateway]...10.1.0.1[stranger]',
    'CFG (unnamed) no matching peer config found',
  ],
  'identity ours',
  'The gateway at 10.1.0.1',
  "itself 'stranger' and us 'gateway'",
);
test(
  'unknown identity, of IPv6 and with a distinguished name',
  fails,
  [
    'CFG (unnamed) looking for peer configs matching fd00::1[%any]...fd00::2[C=CH, CN=a[b]]',
    'CFG (unnamed) no matching peer config found',
  ],
  'identity ours',
  'at fd00::2',
  "'C=CH, CN=a[b]'",
);
test(
  'another identity than expected',
  fails,
  [
    "IKE tunnel authentication of 'gateway.example.org' with pre-shared key successful",
    "CFG tunnel constraint check failed: identity '*.example.com' required ",
    ...REFUSED_CONFIG,
  ],
  'identity ours',
  "is 'gateway.example.org', we expect '*.example.com'",
);
// read: 6.0.1
test(
  'another identity than expected, 6.0.1',
  fails,
  [
    GATEWAY_PROVED,
    "CFG tunnel constraint check failed: identity 'office' (ID_FQDN) required, not matched by 'gateway' (ID_FQDN)",
    ...REFUSED_CONFIG,
  ],
  'identity ours',
  "is 'gateway', we expect 'office'",
);
test(
  'a certificate without the identity, 6.0.1',
  fails,
  ["CFG tunnel constraint check failed: certificate does not confirm identity 'gateway' (ID_FQDN)", ...REFUSED_CONFIG],
  'identity ours',
  'subjectAltName',
);
// read: libcharon/sa/ikev2/tasks/ike_auth.c, libcharon/sa/ikev1/tasks/main_mode.c
test(
  'another IDr',
  fails,
  ['CFG tunnel received IDr office, but require frontend'],
  'identity ours',
  "'office', and we are 'frontend'",
);
test(
  'another IDr, IKEv1',
  fails,
  ["IKE tunnel IDir '10.0.0.7' does not match to 'gateway'"],
  'identity ours',
  "is '10.0.0.7', we expect 'gateway'",
);
test('no config, cause unknown', fails, ['CFG tunnel no alternative config found'], 'other ours', 'ipsec.remoteID');

// seen; libstrongswan/crypto/proposal/proposal.c, libcharon/sa/ikev2/tasks/ike_init.c, child_create.c
test(
  'IKE proposals, they dial',
  fails,
  [
    'CFG (unnamed) received proposals: IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384',
    'CFG (unnamed) configured proposals: IKE:AES_CBC_256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_3072, IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_521',
    'IKE (unnamed) received proposals unacceptable',
  ],
  'proposal ours',
  'offers IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384;',
  'we have IKE:AES_CBC_256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_3072, IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_521:',
  'ipsec.proposals.ike',
);
test(
  'IKE proposals, we dial',
  fails,
  ['IKE tunnel received NO_PROPOSAL_CHOSEN notify error'],
  'proposal theirs',
  'ipsec.proposals.ike',
);
const ESP_OFFER = [
  'CFG tunnel received proposals: ESP:AES_GCM_16_256/ECP_384/NO_EXT_SEQ',
  'CFG tunnel configured proposals: ESP:AES_GCM_16_256/ECP_521/NO_EXT_SEQ',
  'IKE tunnel no acceptable proposal found',
];
test('ESP proposals, they dial', fails, ESP_OFFER, 'proposal ours', 'ipsec.proposals.esp', 'ECP_384', 'ECP_521');
test(
  'ESP proposals, we dial',
  fails,
  [AS_PSK, GATEWAY_PROVED, ESTABLISHED, 'IKE tunnel received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built'],
  'proposal theirs',
  'ipsec.proposals.esp is configured there. Compare its phase 2.',
);
test('PFS at a rekey, theirs', fails, [CHILD, ...ESP_OFFER], 'proposal ours', 'the PFS group above all');
test(
  'PFS at a rekey, ours',
  fails,
  [ESTABLISHED, CHILD, 'IKE tunnel received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built'],
  'proposal theirs',
  'the PFS group above all',
);
// read: libcharon/sa/ikev2/tasks/ike_init.c, child_create.c; "key exchange method" is 6.0.1
for (const [line, kind] of [
  ['requested DH group MODP_1024 not contained in any of our proposals', 'proposal ours'],
  ['requested key exchange method MODP_1024 not contained in any of our proposals', 'proposal ours'],
  ['already retried with DH group ECP_384, ignore requested MODP_1024', 'proposal theirs'],
  ['already retried with key exchange method ECP_384, ignore requested MODP_1024', 'proposal theirs'],
] as const)
  test(line, fails, [`IKE tunnel ${line}`], kind, 'MODP_1024');
test('retries', fails, ['IKE tunnel giving up after 5 retries'], 'proposal theirs', 'one group');
for (const line of [
  'peers proposal selection invalid',
  'peer DH group selection invalid',
  "peer's proposal selection invalid",
  "peer's key exchange method selection invalid",
])
  test(line, fails, [`IKE tunnel ${line}`], 'proposal ours', 'did not offer');

// seen; libcharon/sa/ikev2/tasks/child_create.c
test(
  'selectors, they dial',
  fails,
  [ESTABLISHED, 'IKE tunnel traffic selectors 192.168.60.0/24 === 10.10.0.0/16 unacceptable'],
  'selectors ours',
  'asks for 192.168.60.0/24 on our side and 10.10.0.0/16 on its own',
);
test(
  'selectors, we dial',
  fails,
  ['IKE tunnel received TS_UNACCEPTABLE notify, no CHILD_SA built'],
  'selectors theirs',
  'peerCIDRs',
);
// read: libcharon/sa/ikev2/tasks/child_create.c
test(
  'selectors that we did not ask for',
  fails,
  ['IKE tunnel no acceptable traffic selectors found'],
  'selectors ours',
  'peerCIDRs',
);

// seen; libcharon/sa/ikev2/task_manager_v2.c, libcharon/sa/ike_sa.c, libcharon/plugins/socket_default/socket_default_socket.c
const repeated = (id: number): string[] =>
  [1, 2, 3].map((n) => `IKE tunnel retransmit ${n} of request with message ID ${id}`);
const GIVING_UP = 'IKE tunnel giving up after 3 retransmits';
test('no answer', fails, [...repeated(0), GIVING_UP], 'timeout theirs', 'after 3 repetitions', 'UDP 500 and 4500');
test('no answer to IKE_AUTH', fails, [...repeated(1), GIVING_UP], 'timeout theirs', 'UDP 4500', 'fragments');
test('DPD', fails, [ESTABLISHED, CHILD, ...repeated(0), GIVING_UP], 'timeout theirs', 'the tunnel has ended');
test(
  'no answer, after a tunnel that was taken down',
  fails,
  [ESTABLISHED, CHILD, 'IKE tunnel IKE_SA deleted', ...repeated(0), GIVING_UP],
  'timeout theirs',
  'The gateway does not answer, after',
);
const NO_ROUTE = 'NET - error writing to socket: Network is unreachable';
test(
  'no route',
  fails,
  [NO_ROUTE, ...repeated(0).flatMap((line) => [line, NO_ROUTE]), GIVING_UP],
  'unreachable ours',
  '(Network is unreachable)',
);
test('no route for a moment only', fails, [NO_ROUTE, ...repeated(0), GIVING_UP], 'timeout theirs', 'does not answer');
// seen; libstrongswan/networking/host_resolver.c, libcharon/sa/ike_sa.c, trap_manager.c
const UNRESOLVED = "LIB - resolving 'vpn.example.org' failed: Temporary failure in name resolution";
test(
  'DNS',
  fails,
  [UNRESOLVED, 'IKE tunnel unable to resolve vpn.example.org, initiate aborted'],
  'dns ours',
  "'vpn.example.org' has no address (Temporary failure in name resolution)",
);
test('DNS, again later', fails, ['IKE tunnel unable to resolve vpn.example.org, retrying in 30s'], 'dns ours');
test(
  'a trap without an address',
  fails,
  ['CFG - installing trap failed, remote address unknown'],
  'dns ours',
  'startAction',
);
// seen; libcharon/sa/ikev2/task_manager_v2.c, libcharon/network/receiver.c
test(
  'a stranger dials',
  fails,
  ['IKE (unnamed) no IKE config found for 10.1.0.2...10.1.0.1, sending NO_PROPOSAL_CHOSEN'],
  'address ours',
  '10.1.0.1 dialled us',
);
test(
  'too many half-open ones',
  fails,
  ['NET - ignoring IKE_SA setup from 10.1.0.1, per-IP half-open IKE_SA limit of 5 reached'],
  'other ours',
  '10.1.0.1',
);

// seen; libstrongswan/credentials/credential_manager.c, libstrongswan/plugins/revocation/revocation_validator.c, auth_cfg.c
test(
  'expired',
  fails,
  ['CFG tunnel subject certificate invalid (valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021)', SUBJECT_REFUSED],
  'certificate ours',
  'valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021, not now',
);
test(
  'revoked',
  fails,
  ['CFG tunnel certificate was revoked on Nov 24 20:46:00 UTC 2026, reason: key compromise', SUBJECT_REFUSED],
  'certificate ours',
  'revoked on Nov 24 20:46:00 UTC 2026 (key compromise)',
);
test(
  'another CA',
  fails,
  [
    'CFG tunnel no issuer certificate found for "O=Test, CN=gwother"',
    'CFG tunnel   issuer is "O=Test, CN=Other CA"',
    SUBJECT_REFUSED,
  ],
  'certificate ours',
  "'O=Test, CN=gwother' was issued by a CA that we do not have",
);
test(
  'self-signed',
  fails,
  ['CFG tunnel   self-signed certificate "O=Test, CN=gwself" is not trusted', SUBJECT_REFUSED],
  'certificate ours',
  "ends in 'O=Test, CN=gwself'",
);
test(
  'none with this identity',
  fails,
  [SUBJECT_REFUSED],
  'certificate ours',
  "no certificate for 'gateway'",
  'subjectAltName',
);
test(
  'a CA other than required',
  fails,
  [
    "IKE tunnel authentication of 'gateway' with ECDSA_WITH_SHA256_DER successful",
    "CFG tunnel constraint check failed: peer not authenticated by CA 'O=Test, CN=Other CA'",
    ...REFUSED_CONFIG,
  ],
  'certificate ours',
  "'O=Test, CN=Other CA'",
);
test(
  'no CRL where one is required',
  fails,
  [
    'CFG tunnel certificate status is not available',
    'CFG tunnel constraint check failed: RULE_CRL_VALIDATION is SKIPPED, but requires at least GOOD',
    ...REFUSED_CONFIG,
  ],
  'certificate ours',
  'CRL',
);
// read; libstrongswan/credentials/credential_manager.c, libcharon/sa/ikev2/authenticators/pubkey_authenticator.c,
// libstrongswan/plugins/constraints/constraints_validator.c
for (const [line, word] of [
  [
    'CFG tunnel issuer certificate invalid (valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021)',
    "gateway's issuer",
  ],
  ['IKE tunnel rejecting certificate without digitalSignature or nonRepudiation keyUsage flags', 'keyUsage'],
  ['CFG tunnel maximum path length of 7 exceeded', 'longer than its CAs allow'],
  ['CFG tunnel path length of 1 violates constraint of 0', 'longer than its CAs allow'],
] as const)
  test(line, fails, [line, SUBJECT_REFUSED], 'certificate ours', word);

// seen; libcharon/sa/ikev2/tasks/ike_auth.c
test('no PPK there', fails, ['CFG tunnel PPK required but peer does not support PPK'], 'ppk ours', 'offers no PPK');
test(
  'no PPK here',
  fails,
  ["CFG tunnel PPK required but no PPK found for 'p'"],
  'ppk ours',
  "'p'",
  'ipsec.ppkSecretRef',
);
test('another PPK', fails, ["CFG tunnel received PPK_ID 'p', but require 'q'"], 'ppk ours', "'p', we require 'q'");
// read; libcharon/sa/ikev2/tasks/ike_auth.c
test(
  'no PPK id configured',
  fails,
  ['CFG tunnel PPK required but no PPK_ID configured'],
  'ppk ours',
  'the gateway names none',
);
test(
  'no PPK id received',
  fails,
  ['CFG tunnel PPK required but no PPK_IDENTITY received'],
  'ppk ours',
  'the gateway names none',
);

// seen, on a kernel without ESP and without AES-GCM; libcharon/plugins/kernel_netlink/*.c, libcharon/sa/ikev2/tasks/child_create.c
const UNINSTALLED = 'IKE tunnel unable to install inbound and outbound IPsec SA (SAD) in kernel';
const netlinkError = (text: string): string[] => [
  `KNL tunnel received netlink error: ${text}`,
  'KNL tunnel unable to add SAD entry with SPI cd7c3130 (FAILED)',
  UNINSTALLED,
];
test(
  'no ESP in the kernel',
  fails,
  netlinkError('Protocol not supported (93)'),
  'kernel ours',
  'ESP states) (Protocol not supported)',
  'CONFIG_INET_ESP',
);
test('no such algorithm', fails, netlinkError('Function not implemented (38)'), 'kernel ours', 'ipsec.proposals.esp');
test(
  'no policies',
  fails,
  ['IKE tunnel unable to install IPsec policies (SPD) in kernel'],
  'kernel ours',
  'the policies',
);
// read
test('no capability', fails, netlinkError('Operation not permitted (1)'), 'kernel ours', 'NET_ADMIN');
test('leftovers', fails, netlinkError('File exists (17)'), 'kernel ours', 'restart the pod');
test(
  "the kernel's own words, 6.0.1",
  fails,
  netlinkError('Invalid argument: some words (22)'),
  'kernel ours',
  '(Invalid argument).',
);
test('one direction', fails, ['IKE tunnel unable to install outbound IPsec SA (SAD) in kernel'], 'kernel ours');
test('a trap that the kernel refuses', fails, ['CFG - installing trap failed'], 'kernel ours', 'the policies');
test('no SPI', fails, ['IKE tunnel unable to allocate SPIs from kernel'], 'kernel ours', 'an SPI');
test('no SPI, 6.0.1', fails, ['IKE tunnel unable to allocate SPI from kernel'], 'kernel ours', 'an SPI');

// seen; libcharon/sa/ikev2/tasks/ike_init.c, ike_auth.c, child_create.c
test('any other notify', fails, ['IKE tunnel received INVALID_SYNTAX notify error'], 'other theirs', 'INVALID_SYNTAX');
// read
test(
  'any other notify, CHILD_SA',
  fails,
  ['IKE tunnel received NO_ADDITIONAL_SAS notify, no CHILD_SA built'],
  'other theirs',
  'NO_ADDITIONAL_SAS',
);
test('unique', fails, ['IKE tunnel canceling IKE_SA setup due to uniqueness policy'], 'other ours');
test('a CHILD_SA fails and nothing says why', fails, [ESTABLISHED, KEEPING], 'other ours', 'no CHILD_SA');

// seen
test('a negotiation that goes well', silent, [
  "CFG - vici initiate CHILD_SA 'net'",
  'IKE tunnel initiating IKE_SA tunnel[8] to 10.1.0.2',
  'ENC tunnel generating IKE_SA_INIT request 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) N(FRAG_SUP) N(HASH_ALG) N(REDIR_SUP) ]',
  'NET tunnel sending packet: from 10.1.0.1[500] to 10.1.0.2[500] (296 bytes)',
  "IKE tunnel peer didn't accept DH group ECP_384, it requested ECP_521",
  "IKE tunnel peer didn't accept key exchange method ECP_384, it requested ECP_521",
  'IKE (unnamed) DH group ECP_384 unacceptable, requesting ECP_521',
  'CFG tunnel selected proposal: IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_521',
  'IKE tunnel remote host is behind NAT',
  AS_PSK,
  'IKE tunnel establishing CHILD_SA net{3}',
  GATEWAY_PROVED,
  "CFG tunnel using PPK for PPK_ID 'p'",
  ESTABLISHED,
  CHILD,
  'IKE tunnel scheduling rekeying in 13749s',
  'CFG tunnel certificate status is not available',
  'IKE tunnel received DELETE for IKE_SA tunnel[5]',
  'IKE tunnel IKE_SA deleted',
]);
test('what goes on by itself', silent, [
  'IKE tunnel received TEMPORARY_FAILURE notify, will retry later',
  "CFG tunnel no PPK for 'p' found, ignored because PPK is not required",
  "CFG tunnel peer didn't use PPK for PPK_ID 'p'",
  'IKE tunnel retransmit 1 of request with message ID 0',
  'IKE tunnel establishing IKE_SA failed, peer not responding',
  'IKE tunnel peer not responding, trying again (2/3)',
]);
test('what nobody knows', silent, [
  'IKE tunnel something else failed',
  'IKE tunnel ',
  ' - x',
  'KNL - interface eth0 deactivated',
]);
test('not in the middle of a line', silent, [
  "IKE tunnel authentication of 'x' (myself) no matching peer config found",
  'CFG tunnel   issuer is "CN=received AUTHENTICATION_FAILED notify error"',
]);

test('one failure an attempt: the line that sums up is none', (tt) => {
  const lines = [...ESP_OFFER, KEEPING, 'IKE tunnel CHILD_SA rekeying failed, trying again in 14 seconds'];
  tt.is(failuresOf(lines).length, 1);
});
test('the next attempt says it again', (tt) => {
  const attempt = [...ESP_OFFER, KEEPING];
  tt.is(failuresOf([...attempt, ...attempt]).length, 2);
  const unknown = [ESTABLISHED, KEEPING, KEEPING];
  tt.is(failuresOf(unknown).length, 2);
});
test('what another attempt said does not count', (tt) => {
  const expired = 'CFG tunnel subject certificate invalid (valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021)';
  const begin = 'IKE tunnel initiating IKE_SA tunnel[2] to 10.1.0.2';
  const [failure] = failuresOf([expired, begin, SUBJECT_REFUSED]);
  tt.true(failure?.message.includes('has no certificate'));
  const [mismatch] = failuresOf([...ESP_OFFER, 'IKE tunnel no acceptable proposal found'].slice(-1));
  tt.false(mismatch?.message.includes('ECP'));
});
test('two attempts at a time', (tt) => {
  const of = (name: string, lines: string[]): string[] => lines.map((line) => line.replace('tunnel', name));
  const [a, b] = [
    of('a', ESP_OFFER),
    of(
      'b',
      ESP_OFFER.map((line) => line.replace('ECP_384', 'ECP_256')),
    ),
  ];
  const mixed = a.flatMap((line, at) => [line, b[at] ?? '']);
  const found = failuresOf(mixed);
  tt.deepEqual(
    found.map(({ message }) => /offers \S+/.exec(message)?.[0]),
    ['offers ESP:AES_GCM_16_256/ECP_384/NO_EXT_SEQ;', 'offers ESP:AES_GCM_16_256/ECP_256/NO_EXT_SEQ;'],
  );
});

test('an identity is shown short and on one line', (tt) => {
  const identity = `a\n\u001b[31m\u202e${'x'.repeat(1000)}`;
  const [failure] = failuresOf([`CFG tunnel received PPK_ID '${identity}', but require 'q'`]);
  // A line break is in no line of charon's.
  tt.is(failure, undefined);
  const [shown] = failuresOf([`CFG tunnel received PPK_ID '${identity.replace('\n', '')}', but require 'q'`]);
  tt.true(shown?.message.includes(`'a?[31m?${'x'.repeat(113)}…'`), shown?.message);
});

/** Words of charon's, and anything else, in any order. */
const anything = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc
    .tuple(
      fc.constantFrom(
        'received proposals: ',
        "no trusted RSA public key found for '",
        'traffic selectors ',
        'giving up after ',
        '',
      ),
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom(' retransmits', "'", ' unacceptable', ' === x unacceptable', ''),
    )
    .map((parts) => parts.join('')),
  fc.constantFrom(
    'IKE_SA deleted',
    'no alternative config found',
    'no acceptable proposal found',
    'failed to establish CHILD_SA, keeping IKE_SA',
  ),
);
test('never throws, never grows, always one short line', (tt) => {
  const reader = new FailureReader();
  const records = fc.record(
    { group: fc.string(), msg: anything, ike: fc.string() },
    { requiredKeys: ['group', 'msg'] },
  );
  fc.assert(
    fc.property(records, (one) => {
      const failure = reader.read(one);
      return failure === undefined || /^[^\p{Cc}]{1,1600}$/u.test(failure.message);
    }),
    { numRuns: 2000 },
  );
  tt.pass();
});
test('takes a megabyte of anything quickly', (tt) => {
  const reader = new FailureReader();
  const long = `tried 1 shared key for '${"' - '".repeat(200_000)}`;
  const ms = cpuMs(() => {
    for (let n = 0; n < 20; n += 1) tt.is(reader.read({ group: 'IKE', msg: long }), undefined);
  });
  tt.true(ms < 2000, `${ms} ms`);
});
