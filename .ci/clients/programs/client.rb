# The client program for Ruby's Net::HTTP; ../doc.go says what it does.
require "digest"
require "net/http"
require "openssl"

base, calls, tag, upload_file, upload_hash, download_hash = ARGV

# One request on an HTTP object that was never started: Net::HTTP then says
# "Connection: close".
def send_request(uri, request)
  http = Net::HTTP.new(uri.host, uri.port)
  http.use_ssl = uri.scheme == "https"
  response = http.request(request)
  abort "status #{response.code}: #{response.body}" unless response.code == "200"
  response.body
end

def get(url)
  uri = URI(url)
  send_request(uri, Net::HTTP::Get.new(uri))
end

def post(url, body)
  uri = URI(url)
  request = Net::HTTP::Post.new(uri)
  request.content_type = "application/octet-stream"
  request.body = body
  send_request(uri, request)
end

def same(what, got, want)
  abort "#{what}: got #{got[0, 200].inspect}, want #{want.inspect}" unless got == want
end

1.upto(Integer(calls)) do |n|
  same("call #{n}", get("#{base}/echo?tag=#{tag}&n=#{n}"), "#{tag} #{n}")
end
same("upload", post("#{base}/upload", File.binread(upload_file)), upload_hash)
downloaded = get("#{base}/download")
same("download of #{downloaded.bytesize} bytes", Digest::SHA256.hexdigest(downloaded), download_hash)
