#!/usr/bin/perl
# The client program for Perl's LWP, which opens a connection per call;
# ../doc.go says what it does.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use HTTP::Request;
use LWP::UserAgent;

my ($base, $calls, $tag, $upload_file, $upload_hash, $download_hash) = @ARGV;

my $agent = LWP::UserAgent->new(env_proxy => 1, ssl_opts => { SSL_ca_file => $ENV{SSL_CERT_FILE} });

sub body_of {
    my ($response) = @_;
    die 'status ' . $response->status_line . ': ' . $response->content . "\n" unless $response->code == 200;
    # LWP tells of an answer that broke off by a field of its own.
    my $broken = $response->header('X-Died') || $response->header('Client-Aborted');
    die "the answer broke off: $broken\n" if $broken;
    return $response->content;
}

sub get { return body_of($agent->get($_[0])) }

sub post {
    my ($url, $body) = @_;
    return body_of($agent->request(HTTP::Request->new(POST => $url, ['Content-Type' => 'application/octet-stream'], $body)));
}

sub same {
    my ($what, $got, $want) = @_;
    die "$what: got '" . substr($got, 0, 200) . "', want '$want'\n" unless $got eq $want;
}

same("call $_", get("$base/echo?tag=$tag&n=$_"), "$tag $_") for 1 .. $calls;

open my $file, '<:raw', $upload_file or die "$upload_file: $!\n";
my $upload = do { local $/; <$file> };
same('upload', post("$base/upload", $upload), $upload_hash);
my $downloaded = get("$base/download");
same('download of ' . length($downloaded) . ' bytes', sha256_hex($downloaded), $download_hash);
