@0xf7ec4bdd4f51341e;

# The one door: whoever dials a node gets a Membrane, and proves a key to get more.

struct Error {
  # Present in an answer when the call was refused or failed; absent means success.
  version @0 :UInt16;
  code @1 :Text;
  # Stable, for programs: see codes in src/error.rs.
  message @2 :Text;
  help @3 :Text;
  # What to do next; empty when there is nothing to say.
}

struct PublicInfo {
  # What anyone may know of a node.
  version @0 :UInt16;
  node @1 :Data;
  agent @2 :Text;
  # Version of the program.
  realm @3 :Data;
  # Empty when the node belongs to no realm, or does not say.
  name @4 :Text;
  # Of the realm; empty likewise.
}

struct Challenge {
  version @0 :UInt16;
  domain @1 :Text;
  realm @2 :Data;
  # Empty when the node belongs to no realm yet.
  node @3 :Data;
  nonce @4 :Data;
  epoch @5 :UInt64;
}

interface Signer {
  sign @0 (challenge :Challenge) -> (proof :Data, error :Error);
  # The proof is the signed challenge with the signer's key in it.
}

struct Export {
  name @0 :Text;
  cap @1 :Capability;
}

interface Membrane {
  info @0 () -> (info :PublicInfo);
  graft @1 (signer :Signer) -> (info :PublicInfo, exports :List(Export), error :Error);
  # What the key may hold, by name. A key without rights gets the info and no exports.
}
