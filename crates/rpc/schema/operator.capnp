@0x9f2d7badb2defe72;

# What an owner or operator may do on a node. Everything that changes state is a signed intent.

using Membrane = import "membrane.capnp";
using Error = Membrane.Error;

struct Head {
  # All that is needed to sign the next intent: who trusts the author can fold one step from it.
  seq @0 :UInt64;
  entry @1 :Data;
  # The signed entry as on the wire; the signed genesis when seq is 0.
  parentState @2 :Data;
  # The canonical folded state before the entry; empty when seq is 0.
  payload @3 :Data;
  named @4 :List(Intent);
  # Every entry that a merge names: its heads, and what it applies again. None for other kinds.
}

struct HeadId {
  seq @0 :UInt64;
  hash @1 :Data;
}

struct Intent {
  entry @0 :Data;
  payload @1 :Data;
  # Empty when erased, as superseded payloads may be.
}

struct Fork {
  seq @0 :UInt64;
  # The first revision that exists twice.
  branches @1 :List(Branch);

  struct Branch {
    entries @0 :List(Intent);
    # From `seq` on, oldest first.
  }
}

struct Artifact {
  sha256 @0 :Data;
  size @1 :UInt64;
  blake3 @2 :Data;
}

struct PendingNode {
  key @0 :Data;
  name @1 :Text;
  # What the node calls itself.
  tags @2 :List(Text);
  address @3 :Text;
  firstSeen @4 :UInt64;
  # Milliseconds since 1970.
}

struct LogQuery {
  component @0 :Text;
  # Empty is every component.
  tail @1 :UInt64;
  # Only the last so many lines; all ones is no bound.
  since @2 :UInt64;
  # Milliseconds since 1970; 0 is the beginning.
  follow @3 :Bool;
  previous @4 :Bool;
  # Lines of the run before the present one.
}

struct LogLine {
  at @0 :UInt64;
  component @1 :Text;
  node @2 :Text;
  index @3 :UInt32;
  stream @4 :Stream;
  text @5 :Data;
  # As the cell wrote it, without the line's end; need not be UTF-8.

  enum Stream {
    out @0;
    err @1;
    agent @2;
    # What the agent says about the cell.
  }
}

interface LogSink {
  lines @0 (lines :List(LogLine)) -> ();
  # The sender waits for each answer: that is the backpressure.
}

struct Event {
  seq @0 :UInt64;
  at @1 :UInt64;
  kind @2 :Text;
  subject @3 :Text;
  message @4 :Text;
}

interface EventSink {
  events @0 (events :List(Event)) -> ();
}

struct Sighting {
  # What the asked node has of one node. Its own view is its word alone; the report and the claims
  # carry the signatures of whom they are of.
  key @0 :Data;
  present @1 :Bool;
  # A member that answers.
  settled @2 :Bool;
  # Present for long enough to be given work.
  bootId @3 :UInt64;
  # The newest boot it was heard of; all ones is not known.
  link @4 :Link;
  rttMicros @5 :UInt64;
  # All ones is not known.
  address @6 :Text;
  # Empty is not known.
  lastSeen @7 :UInt64;
  # Milliseconds since 1970; 0 is never.
  name @8 :Text;
  # What a node that asks to join calls itself; empty for others.
  kept @9 :Bool;
  # The report and the claims that were sent before still hold, and are not sent again.
  report @10 :Data;
  # The signed report as on the wire; empty when there is none.
  claims @11 :List(Data);
  # The witnessed claims of this node.
  twin @12 :Bool;
  # Two agents take turns with its key.

  enum Link {
    none @0;
    itself @1;
    quic @2;
    tcp @3;
    relay @4;
  }
}

struct SurveyPart {
  head @0 :HeadId;
  # The last agreed entry of the log that the node has.
  forked @1 :Bool;
  nodes @2 :List(Sighting);
  # Those that changed since they were sent last; all of them at first.
  gone @3 :List(Data);
  # Keys that the node does not speak of any more.
  more @4 :Bool;
  # Whether further parts belong to this picture.
}

interface SurveySink {
  part @0 (part :SurveyPart) -> ();
}

interface Upload {
  write @0 (offset :UInt64, bytes :Data) -> (received :UInt64, error :Error);
  finish @1 () -> (error :Error);
  # Answers once the bytes are verified and durable.
}

interface Operator {
  head @0 () -> (head :Head, error :Error);
  heads @1 () -> (heads :List(HeadId), error :Error);
  # More than one during a fork.
  submit @2 (entry :Data, payload :Data) -> (seq :UInt64, durableOn :UInt32, error :Error);
  survey @3 (sink :SurveySink) -> (error :Error);
  # What the node knows of its realm, once.
  watch @4 (sink :SurveySink) -> (error :Error);
  # The same, and again each time it changed; changes in between are folded into one. Something is
  # sent every few seconds in any case, so that silence means that the node is gone.
  logs @5 (query :LogQuery, sink :LogSink) -> (error :Error);
  events @6 (after :UInt64, follow :Bool, sink :EventSink) -> (error :Error);
  history @7 (from :UInt64, to :UInt64) -> (intents :List(Intent), error :Error);
  # As many as fit an answer; ask again from the next one.
  forks @8 () -> (forks :List(Fork), error :Error);
  uploadBegin @9 (artifact :Artifact) -> (upload :Upload, received :UInt64, error :Error);
  # received: bytes that are already here; equal to the size when there is nothing to send.
  claim @10 (claim :Data) -> (witnessed :Data, error :Error);
  pending @11 () -> (nodes :List(PendingNode), error :Error);
  peerAdd @12 (address :Text) -> (error :Error);
  adopt @13 (genesis :Data) -> (error :Error);
  # Gives a node that pinned an owner, and knows no realm yet, the owner's realm.
  standing @14 () -> (claims :List(Data), error :Error);
  # The witnessed claims by which this node came into the realm: its own, its witness's, and so
  # on to a node that the log approves, or to the first one. None where the log names this node.
}
