#!/bin/bash
# git: objects, packs, hooks, clones over file:// and through a daemon on loopback.
# hooked: git git-daemon|git sh|dash
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z' GIT_PAGER=cat GIT_CONFIG_NOSYSTEM=1
cd "$TMPDIR" || exit 1
git config --global init.defaultBranch main
git config --global protocol.file.allow always
step init git init -q source
cd source || exit 1
printf '#!/bin/sh\necho "hook: $(git diff --cached --name-only | wc -l) files"\n' >.git/hooks/pre-commit
chmod +x .git/hooks/pre-commit
for i in $(seq 1 15); do
  mkdir -p "folder$((i % 3))"
  seq "$i" $((i * 400)) >"folder$((i % 3))/file$i"
  echo "line $i" >>log
  git add -A
  git commit -q -m "commit $i"
done
step log git log --oneline
step show git show --stat HEAD~3
step branch git checkout -q -b side HEAD~5
seq 1 50 >side
git add side
step commit git commit -q -m side
step merge git merge -q --no-edit main
step graph git log --graph --oneline -5
git checkout -q main
step rebase git rebase -q side
step blame git blame -s log
step grep git grep -c 1234
step repack git repack -a -d -q
step gc git gc -q --prune=now --aggressive
step fsck git fsck --full --strict
step count git count-objects -v
step bundle git bundle create -q ../bundle --all
step archive git archive --format=tar.gz -o ../archive.tar.gz HEAD
tar tzf ../archive.tar.gz | sort | sha256sum
cd ..
step clone-file git clone -q "file://$TMPDIR/source" by-file
git -C by-file log -1 --format=%H
step clone-bundle git clone -q bundle by-bundle
step shallow git clone -q --depth 2 "file://$TMPDIR/source" shallow
git -C shallow rev-list --count HEAD

git daemon --export-all --enable=receive-pack --base-path="$TMPDIR" --listen=127.0.0.1 --port=9418 --reuseaddr "$TMPDIR" & daemon=$!
await listens 9418
step clone-daemon git clone -q git://127.0.0.1/source by-daemon
git -C by-daemon log -1 --format=%H
for i in 1 2 3; do git clone -q git://127.0.0.1/source "together$i" & clones[i]=$!; done
for i in 1 2 3; do wait "${clones[i]}"; echo "together $i $?"; done
cd by-daemon || exit 1
echo pushed >pushed
git add pushed
git commit -q -m pushed
step push git push -q origin HEAD:refs/heads/pushed
cd ..
git -C source log -1 --format='%H %s' pushed
kill $daemon
wait $daemon
echo "daemon $?"
step submodule git -C by-file submodule --quiet add "file://$TMPDIR/source" inner
git -C by-file submodule status | cut -c2-41
step worktree git -C source worktree add -q ../tree side
ls tree
git -C source stash list
