#!/bin/sh
# Does what the registry's S3 driver does to store a layer: puts and gets an object, uploads one in two parts, copies it and
# deletes all. If S3 refuses one of these requests, finds out whether it takes it without the driver's checksum, or with
# smaller parts. Objects that it put are deleted.
# Arguments: ORIGIN PATH BUCKET KEY CHUNK SMALLEST ALGORITHM SUM CHUNK_SUM SMALLEST_SUM DELETE DELETE_PLAIN INSECURE
#   ORIGIN, PATH     scheme and host of the bucket; its path, or nothing
#   BUCKET, KEY      the bucket's name; the encoded key of the object to put
#   CHUNK, SMALLEST  the size of a part, and the smallest that S3 knows, in bytes
#   ALGORITHM        of the driver's checksums; "" for none
#   …SUM             the checksums of the text `provision`, and of that many zero bytes
#   DELETE…          the header with the checksum of the request that deletes objects, with ALGORITHM and without
#   INSECURE         yes: the service's certificate is not checked
# Standard input: eight lines for use_s3, then the body of the request that deletes the objects.
# On failure the cause is on standard error, with the setting that is the remedy if there is one.
# Source: GitLab's container registry, registry/storage/driver/s3-aws/v2.
. ./lib/s3.sh
use_s3 "$1" || exit
path=$2 bucket=$3 key=$4 chunk=$5 smallest=$6 wanted=$7 sum=$8 insecure=${13}
chunk_sum=$9 smallest_sum=${10} delete=${11} delete_plain=${12}
object=$path/$key
work=$(mktemp -d /run/provision-bucket.XXXXXX) || exit
trap 'rm -rf -- "$work"' EXIT
cat > "$work/delete"
printf provision > "$work/text"
nothing=$(printf '' | hash_of)
# step WHAT PERMISSION BODY METHOD PATH QUERY HASH HEADER…: sends the request; fails unless S3 does it. It may answer 200
# with an error inside. BODY: a line of curl's configuration.
step() {
  what=$1 permission=$2 body=$3
  shift 3
  answer=$({ signed "$@"; printf '%s\n' "$body" 'header = "content-type: application/octet-stream"' ${insecure:+insecure}; } |
    ask_s3 "$work/headers" 2>&1)
  status=$(printf '%s' "$answer" | tail -n 1)
  case $status:$answer in 2??:*'<Error>'*) return 1 ;; 2??:*) return 0 ;; *) return 1 ;; esac
}
header() { tr -d '\r' < "$work/headers" | sed -n "s/^$1: *//Ip" | tail -n 1 | tr -cd 'A-Za-z0-9+/=-'; }
# upload WHAT FILE SUM PATH QUERY: puts a file, as an object or as a part. Over HTTPS the driver's checksum follows the body.
upload() {
  name=$(printf 'x-amz-checksum-%s' "$algorithm" | tr '[:upper:]' '[:lower:]')
  size=$(wc -c < "$2" | tr -d ' ')
  file=$2
  case $algorithm:$origin in
    :https:*) set -- "$1" "$4" "$5" UNSIGNED-PAYLOAD ;;
    :*) set -- "$1" "$4" "$5" "$(hash_of < "$2")" ;;
    *:https:*)
      file=$work/framed
      printf '%x\r\n' "$size" > "$file"
      if [ "$2" = "$work/text" ]; then cat "$2" >> "$file"; else truncate -s "+$size" "$file"; fi
      printf '\r\n0\r\n%s:%s\r\n\r\n' "$name" "$3" >> "$file"
      set -- "$1" "$4" "$5" STREAMING-UNSIGNED-PAYLOAD-TRAILER content-encoding:aws-chunked \
        "x-amz-decoded-content-length:$size" "x-amz-sdk-checksum-algorithm:$algorithm" "x-amz-trailer:$name" ;;
    *) set -- "$1" "$4" "$5" "$(hash_of < "$2")" "x-amz-sdk-checksum-algorithm:$algorithm" "$name:$3" ;;
  esac
  title=$1
  shift
  step "$title" PutObject "upload-file = \"$file\"" PUT "$@"
}
# part NUMBER FILE SUM: uploads it, and adds it to the list of parts.
part() {
  upload "store a part of $(wc -c < "$2" | tr -d ' ') bytes" "$2" "$3" "$object-parts" "partNumber=$1&uploadId=$id" || return 1
  tag=$(header etag) own=$(header "x-amz-checksum-$algorithm")
  printf '<Part>%s<ETag>"%s"</ETag><PartNumber>%s</PartNumber></Part>' \
    "${algorithm:+${own:+<Checksum$algorithm>$own</Checksum$algorithm>}}" "$tag" "$1" >> "$work/parts"
}
# attempt ALGORITHM SIZE: stores one layer.
attempt() {
  algorithm=$1 id='' prefix=$(printf '%s' "$key-parts" | sed 's|/|%2F|g')
  if [ "$2" = "$chunk" ]; then large_sum=$chunk_sum; else large_sum=$smallest_sum; fi
  rm -f "$work/large"
  truncate -s "$2" "$work/large"
  none='data = ""'
  upload 'put an object' "$work/text" "$sum" "$object" '' &&
    step 'get an object' GetObject 'range = "0-"' GET "$object" '' "$nothing" &&
    step 'list multipart uploads' ListBucketMultipartUploads '' GET "$path/" "prefix=$prefix&uploads=" "$nothing" &&
    step 'begin a multipart upload' PutObject "$none" POST "$object-parts" 'uploads=' "$nothing" \
      ${algorithm:+"x-amz-checksum-algorithm:$algorithm"} || return 1
  id=$(printf '%s' "$answer" | tr -d '\n' | sed -n 's|.*<UploadId>\([A-Za-z0-9._~+/=:-]*\)</UploadId>.*|\1|p' |
    sed 's|+|%2B|g; s|/|%2F|g; s|=|%3D|g; s|:|%3A|g')
  [ -n "$id" ] || return 1
  printf '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' > "$work/parts"
  part 1 "$work/large" "$large_sum" && part 2 "$work/text" "$sum" || return 1
  printf '</CompleteMultipartUpload>' >> "$work/parts"
  step 'complete a multipart upload' PutObject "data-binary = \"@$work/parts\"" POST "$object-parts" "uploadId=$id" \
    "$(hash_of < "$work/parts")" || return 1
  id=
  step 'copy an object' PutObject "$none" PUT "$object-copy" '' "$nothing" "x-amz-copy-source:$bucket/$key-parts" \
    ${algorithm:+"x-amz-checksum-algorithm:$algorithm"} || return 1
  if [ -n "$algorithm" ]; then set -- "$delete" "x-amz-sdk-checksum-algorithm:$algorithm"; else set -- "$delete_plain"; fi
  step 'delete an object' DeleteObject "data-binary = \"@$work/delete\"" POST "$path/" 'delete=' "$(hash_of < "$work/delete")" "$@"
}
# try ALGORITHM SIZE: an attempt that leaves nothing, and what it failed at in "$what" and "$answer".
try() {
  ! attempt "$1" "$2" || return 0
  kept_what=$what kept_permission=$permission kept_answer=$answer kept_status=$status
  [ -z "$id" ] || step '' '' '' DELETE "$object-parts" "uploadId=$id" "$nothing"
  for one in "$object" "$object-parts" "$object-copy"; do step '' '' '' DELETE "$one" '' "$nothing"; done
  what=$kept_what permission=$kept_permission answer=$kept_answer status=$kept_status
  return 1
}
fail() { printf '%s\n' "$1" >&2; exit 1; }
# size_matters: whether the size of a part is what S3 refuses; prints the remedy.
size_matters() {
  case $status:$answer in
    *EntityTooSmall*) echo "it wants larger parts: set registry.s3.chunksize to more than $chunk" ;;
    413:* | *EntityTooLarge*) echo "it wants smaller parts: set registry.s3.chunksize to less than $chunk, at least $smallest" ;;
    *) return 1 ;;
  esac
}
! try "$wanted" "$chunk" || exit 0
case $answer in
  *'<Code>AccessDenied</Code>'*) fail "these keys may not $what (AccessDenied): allow s3:$permission in the bucket's policy" ;;
esac
problem="S3 does not $what: $answer" first=$what
! remedy=$(size_matters) || fail "$problem
$remedy"
if [ -n "$wanted" ] && [ "$status" != 000 ]; then
  without="without the driver's checksum ($wanted) it does: set registry.s3.checksum_disabled = true"
  ! try '' "$chunk" || fail "$problem
$without"
  if [ "$what" != "$first" ]; then
    ! remedy=$(size_matters) || without="$without
$remedy"
    fail "$problem
$without
then S3 does not $what: $answer"
  fi
fi
case $what in
  'delete an object')
    case $delete_plain in
      x-amz-checksum*) problem="$problem
GitLab 19.0 and 19.1 send this checksum even with registry.s3.checksum_disabled: install 19.2 or later" ;;
    esac ;;
  "store a part of $chunk bytes" | 'complete a multipart upload')
    [ "$chunk" = "$smallest" ] || ! try "$wanted" "$smallest" || fail "$problem
it takes smaller parts: set registry.s3.chunksize = $smallest" ;;
esac
case $what in
  *multipart* | 'store a part'*) problem="$problem
the registry stores every layer with a multipart upload, so it needs a service that has them" ;;
esac
fail "$problem"
